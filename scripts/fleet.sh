#!/usr/bin/env bash
# Actions of the justfile's recipes on hosts: `fleet.sh COMMAND ARGUMENTS…`; see `just --list`.
#
# Only hosts/addresses.json has hosts and their addresses. All commands run as root over SSH. A secret goes
# through standard input, never into an argument that another machine sees. FLEET_ROOT is another directory with
# a flake, hosts/ and secrets/; `nix run .#fleet` sets it to the repository around the current directory.
set -euo pipefail

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=${FLEET_ROOT:-$(dirname "$scripts")}
addresses=$root/hosts/addresses.json
secret=$root/secrets/github-runner.age
rules=$root/secrets/secrets.nix

# Maximum time after a deploy until runners wait for jobs.
patience=${PATIENCE:-5m}
# Maximum time that a drain waits for jobs.
drain_patience=${DRAIN_PATIENCE:-12h}

note() { echo "==> $*" >&2; }
die() {
    echo "error: $*" >&2
    exit 1
}

# Prints "name value" lines of a file that is a flat table.
table() { sed -nE 's/^ *"([^"]+)" *: *"([^"]+)",?$/\1 \2/p' "$1"; }
hosts() { table "$addresses" | cut -d ' ' -f 1; }

address_of() {
    local address
    address=$(table "$addresses" | awk -v host="$1" '$1 == host { print $2 }')
    [ -n "$address" ] || die "host $1 is not in hosts/addresses.json; it has: $(hosts | xargs)"
    case $address in
    192.0.2.*) die "the address of $1 is a placeholder; put its real address into hosts/addresses.json" ;;
    esac
    echo "$address"
}

# on HOST COMMAND…: runs a command as root on a host. Each word arrives unchanged, with any characters.
on() {
    local host=$1 address
    shift
    address=$(address_of "$host") || exit 1
    # The words are quoted for the remote shell.
    # shellcheck disable=SC2029
    ssh -o ConnectTimeout=15 "root@$address" "$(printf '%q ' "$@")"
}

await_ready() {
    note "$1: waiting until runners wait for jobs"
    on "$1" runner-status --wait "$patience" </dev/null
}

build() {
    local host=$1
    shift
    nixos-rebuild build --flake "$root#$host" "$@"
}

switch() {
    local host=$1 address
    shift
    address=$(address_of "$host") || exit 1
    have_operators
    lacks_placeholder "$host" "$rules" ||
        die "secrets/secrets.nix has a placeholder for $host, so the host cannot open its secrets; put its host key there, then run: just agenix-rekey"
    note_old_runner
    note "$host: deploying"
    nixos-rebuild switch --flake "$root#$host" --target-host "root@$address" --use-substitutes "$@" </dev/null
}

# apply HOST [--drain] ARGUMENTS…: running jobs do not notice a deploy, so it waits for them only with
# --drain. A host that was drained before, such as for an unattended reboot, stays so. Each step reports why it
# failed, and the caller stops.
apply() {
    local host=$1 drain=no
    shift
    if [ "${1-}" = --drain ]; then
        drain=yes
        shift
        ! is_drained "$host" || drain=before
        drain_host "$host" || return
    fi
    if ! switch "$host" "$@"; then
        [ $drain != yes ] || note "$host: not deployed, and still drained; run: just undrain $host"
        return 1
    fi
    if [ $drain = before ]; then
        note "$host: deployed, and still drained as before; run: just undrain $host"
        return
    fi
    if [ $drain = yes ]; then
        on "$host" runner-controller undrain </dev/null || return
    fi
    await_ready "$host"
}

apply_all() {
    local all host
    all=$(hosts)
    for host in $all; do
        apply "$host" "$@" || die "cannot deploy $host: see above; later hosts are untouched"
    done
    note "all hosts are deployed and take jobs: $(echo "$all" | xargs)"
}

# Returns success if the host is draining or drained.
is_drained() {
    local status
    status=$(on "$1" runner-status --json </dev/null) || return 1
    [[ $status =~ \"state\":\ *\"(draining|drained)\" ]]
}

drain_host() {
    note "$1: draining; waiting at most $drain_patience for running jobs"
    on "$1" runner-controller drain --wait --timeout "$drain_patience" </dev/null
}

# A reboot ends all jobs, so it always drains first.
reboot_host() {
    local host=$1 before now=""
    before=$(boot_of "$host")
    drain_host "$host"
    note "$host: rebooting"
    # The host closes the connection when it goes down.
    on "$host" systemctl reboot </dev/null || true
    for ((try = 0; try < ${REBOOT_TRIES:-60}; try++)); do
        sleep "${REBOOT_PAUSE:-10}"
        now=$(boot_of "$host" 2>/dev/null) || continue
        [ "$now" = "$before" ] || break
    done
    { [ -n "$now" ] && [ "$now" != "$before" ]; } || die "$host did not answer after the reboot"
    # The host answers before its daemon.
    on "$host" systemctl start runner-controller.service </dev/null
    on "$host" runner-controller undrain </dev/null
    await_ready "$host"
}
boot_of() { on "$1" cat /proc/sys/kernel/random/boot_id </dev/null; }

rollback() {
    local host=$1 profile=/nix/var/nix/profiles/system
    note "$host: switching to the previous system"
    on "$host" nix-env --profile $profile --rollback </dev/null
    on "$host" $profile/bin/switch-to-configuration switch </dev/null
    await_ready "$host"
}

# GitHub refuses runners that are some weeks old, and evaluation has no clock.
note_old_runner() {
    local changed days
    [ -f "$root/flake.lock" ] || return 0
    changed=$(awk '/"nixpkgs-runner": \{/ { at = 1 } at && /"lastModified":/ { gsub(/[^0-9]/, ""); print; exit }' "$root/flake.lock")
    days=$((($(date +%s) - ${changed:-0}) / 86400))
    [ "$days" -le 25 ] ||
        note "warning: the runner of this deploy is from an input that is $days days old; run: just bump-runner"
}

# A system with only the placeholder's key locks the operator out for good.
have_operators() {
    ! grep -Eq '^ *placeholder *=' "$root/hosts/operators.nix" ||
        die "hosts/operators.nix has only a placeholder; replace it with your SSH public key"
}

# lacks_placeholder NAME FILE…: fails if a file has this value of hosts/placeholders.json.
lacks_placeholder() {
    local value
    [ -f "$root/hosts/placeholders.json" ] || return 0
    value=$(table "$root/hosts/placeholders.json" | sed -n "s/^$1 //p")
    [ -z "$value" ] || ! grep -rqsF -e "$value" "${@:2}"
}

# Runs a function for every host. Continues after a host that has a problem, and names it at the end.
everywhere() {
    local all host failed=()
    all=$(hosts)
    for host in $all; do
        echo "--- $host"
        "$@" "$host" || failed+=("$host")
    done
    ((${#failed[@]} == 0)) || die "these hosts have a problem or do not answer: ${failed[*]}"
}
status() { on "$1" runner-status </dev/null; }
storage() { on "$1" bash -s <"$scripts/storage.sh"; }

# logs HOST [SLOT] [-f]; `controller` instead of a slot is the daemon.
logs() {
    local host=$1
    shift
    if [ "${1-}" = controller ]; then
        shift
        on "$host" journalctl --unit=runner-controller "$@"
    else
        on "$host" runner-logs "$@"
    fi
}

# test_webhook HOST ARGUMENTS…: shows which pool serves a job. Only DRY_RUN=false tells the daemon of the job.
test_webhook() {
    local host=$1 send=()
    shift
    case ${DRY_RUN-true} in
    true) ;;
    false) send=(--send) ;;
    *) die "DRY_RUN is \"$DRY_RUN\"; write true or false" ;;
    esac
    on "$host" runner-controller webhook-test ${send[@]+"${send[@]}"} "$@" </dev/null
}

# Reads a token from an argument, a prompt, or standard input.
read_token() {
    local token=${1-}
    if [ -n "$token" ]; then
        note "warning: a token in an argument stays in your shell's history, and every user of this machine can see it while this runs; use standard input or the prompt instead"
    elif [ -t 0 ]; then
        read -rsp "GitHub token: " token
        echo >&2
    else
        IFS= read -r token || true
    fi
    [[ $token =~ ^[A-Za-z0-9_]{20,255}$ ]] ||
        die "this is not a GitHub token: a token has 20 to 255 letters, digits and underscores"
    printf '%s' "$token"
}

# Encrypts standard input for the keys in secrets.nix.
encrypt() {
    local recipients new key arguments=()
    recipients=$(nix --extra-experimental-features nix-command eval --raw --file "$rules" --apply \
        'rules: builtins.concatStringsSep "\n" rules."github-runner.age".publicKeys' </dev/null)
    while IFS= read -r key; do
        [ -z "$key" ] || arguments+=(--recipient "$key")
    done <<<"$recipients"
    ((${#arguments[@]})) || die "secrets/secrets.nix has no key for github-runner.age; add one"
    new=$(mktemp "$secret.XXXXXX")
    if ! age --encrypt --armor "${arguments[@]}" >"$new"; then
        rm -f "$new"
        die "cannot encrypt the token: age failed; the old secret is untouched"
    fi
    chmod 644 "$new"
    mv "$new" "$secret"
    note "secrets/github-runner.age has the new token; commit it"
}

encrypt_token() {
    local token
    token=$(read_token "${1-}")
    # Some versions of bash put a here-string into a file.
    printf '%s\n' "$token" | encrypt
}

set_token() {
    local host=$1
    address_of "$host" >/dev/null
    have_operators
    encrypt_token "${2-}"
    switch "$host"
    note "$host: restarting the daemon; no job notices"
    on "$host" systemctl restart runner-controller.service </dev/null
    if ! await_ready "$host"; then
        die "$host does not take jobs: GitHub does not accept the token, or there is another problem; see above"
    fi
    note "$host: GitHub accepted the token"
    local other
    other=$(hosts | grep -vxF "$host" | xargs)
    [ -z "$other" ] || note "these hosts still have the old token: $other; run: just apply-all"
}

agenix_edit() { (cd "$root/secrets" && agenix --edit "${1:-github-runner.age}"); }
agenix_rekey() { (cd "$root/secrets" && agenix --rekey); }

# bootstrap HOST ADDRESS: wipes the machine at that address and installs the host on it. ADDRESS may have
# the form IP=1.2.3.4.
bootstrap() {
    local host=$1 ip=${2-}
    shift 2 || die "the address is missing; run: just bootstrap $host 1.2.3.4"
    ip=${ip#IP=}
    hosts | grep -qxF "$host" || die "host $host is not in hosts/addresses.json; it has: $(hosts | xargs)"
    [[ $ip =~ ^[A-Za-z0-9:][A-Za-z0-9.:-]*$ ]] || die "\"$ip\" is not an address"
    have_operators
    lacks_placeholder disk "$root/hosts/$host" ||
        die "hosts/$host names a placeholder as its disk; put the disk's name in /dev/disk/by-id there"
    # Global, because a trap removes it.
    extra=$(mktemp -d "${XDG_RUNTIME_DIR:-/tmp}/bootstrap.XXXXXX")
    trap 'rm -rf "$extra"' EXIT
    host_key "$host" "$extra/etc/ssh"
    # The first boot opens the secret with that key, so the secret is encrypted for it first.
    if ! agenix_rekey </dev/null; then
        note "your key cannot open the secrets, so the token is needed again"
        encrypt_token
    fi
    note "$host: wiping $ip and installing"
    nixos-anywhere --flake "$root#$host" --target-host "root@$ip" --extra-files "$extra" \
        --generate-hardware-config nixos-generate-config "$root/hosts/$host/hardware.nix" "$@"
    sed -E -i "s|^( *\"$host\" *: *\")[^\"]+|\1$ip|" "$addresses"
    note "$host: installed; commit hosts/ and secrets/, then run: just apply $host"
}

# host_key HOST DIR: makes a host key in DIR and writes its public half into secrets.nix.
host_key() {
    local host=$1 dir=$2 key line
    line="^( *$host = \")ssh-ed25519 [^\"]*(\";)\$"
    [ "$(grep -cE "$line" "$rules")" = 1 ] || die "secrets/secrets.nix lacks the line $host = \"ssh-ed25519 …\";"
    # The host gets the directory's mode, and its users must reach /etc/ssh.
    (umask 022 && mkdir -p "$dir")
    ssh-keygen -q -t ed25519 -N "" -C "$host" -f "$dir/ssh_host_ed25519_key" </dev/null
    key=$(cut -d ' ' -f 1,2 "$dir/ssh_host_ed25519_key.pub")
    sed -E -i "s|$line|\1$key\2|" "$rules"
}

case ${1-} in
hosts) hosts ;;
build | apply | rollback | status | storage | logs | bootstrap) "$@" ;;
apply-all) apply_all "${@:2}" ;;
status-all) everywhere status ;;
storage-all) everywhere storage ;;
test-webhook) test_webhook "${@:2}" ;;
drain) drain_host "$2" ;;
undrain) on "$2" runner-controller undrain </dev/null ;;
reboot) reboot_host "$2" ;;
set-token) set_token "${@:2}" ;;
encrypt-token) encrypt_token "${@:2}" ;;
agenix-edit) agenix_edit "${@:2}" ;;
agenix-rekey) agenix_rekey ;;
*) die "unknown command \"${1-}\"; see: just --list" ;;
esac
