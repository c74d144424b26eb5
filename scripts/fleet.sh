#!/usr/bin/env bash
# What the recipes of the justfile do to hosts. `fleet.sh COMMAND ARGUMENTS…`; see `just --list`.
#
# Hosts and their addresses are in hosts/addresses.json and nowhere else. Everything is done as root
# over SSH; a secret goes through standard input, never into an argument that another machine sees.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
addresses=$root/hosts/addresses.json
secret=$root/secrets/github-runner.age
rules=$root/secrets/secrets.nix

# How long a host may take to be well after a deploy: image and daemon are there, runners register.
patience=${PATIENCE:-5m}
# How long a drain waits for jobs.
drain_patience=${DRAIN_PATIENCE:-12h}

note() { echo "==> $*" >&2; }
die() {
    echo "error: $*" >&2
    exit 1
}

# "name address", one a line: the file is a flat table.
table() { sed -nE 's/^ *"([^"]+)" *: *"([^"]+)",?$/\1 \2/p' "$addresses"; }
hosts() { table | cut -d ' ' -f 1; }

address_of() {
    local address
    address=$(table | awk -v host="$1" '$1 == host { print $2 }')
    [ -n "$address" ] || die "no host $1 in hosts/addresses.json; it has: $(hosts | xargs)"
    case $address in
    192.0.2.*) die "the address of $1 is a placeholder; put its own into hosts/addresses.json" ;;
    esac
    echo "$address"
}

# on HOST COMMAND…: as root there. Each word arrives as it is, whatever its characters.
on() {
    local host=$1 address
    shift
    address=$(address_of "$host") || exit 1
    # The words are quoted here for the shell there.
    # shellcheck disable=SC2029
    ssh -o ConnectTimeout=15 "root@$address" "$(printf '%q ' "$@")"
}

await_well() {
    note "$1: waiting until its runners wait for jobs"
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
    note "$host: deploying"
    nixos-rebuild switch --flake "$root#$host" --target-host "root@$address" --use-substitutes "$@" </dev/null
}

# apply HOST [--drain] ARGUMENTS…: running jobs do not notice a deploy, so it waits for them only if it
# is told to. Every step says why it failed; the caller only has to stop.
apply() {
    local host=$1 drain=no
    shift
    if [ "${1-}" = --drain ]; then
        drain=yes
        shift
        drain_host "$host" || return
    fi
    if ! switch "$host" "$@"; then
        [ $drain = no ] || note "$host: not deployed, and drained: just undrain $host"
        return 1
    fi
    if [ $drain = yes ]; then
        on "$host" runner-controller undrain </dev/null || return
    fi
    await_well "$host"
}

apply_all() {
    local all host
    all=$(hosts)
    for host in $all; do
        apply "$host" "$@" || die "$host: see above; later hosts are untouched"
    done
    note "all hosts are deployed and well: $(echo "$all" | xargs)"
}

drain_host() {
    note "$1: draining; jobs that run are waited for, at most $drain_patience"
    on "$1" runner-controller drain --wait --timeout "$drain_patience" </dev/null
}

# A reboot ends whatever runs, so it always drains first.
reboot_host() {
    local host=$1 before now=""
    before=$(boot_of "$host")
    drain_host "$host"
    note "$host: rebooting"
    # The connection breaks off with the host.
    on "$host" systemctl reboot </dev/null || true
    for ((try = 0; try < ${REBOOT_TRIES:-60}; try++)); do
        sleep "${REBOOT_PAUSE:-10}"
        now=$(boot_of "$host" 2>/dev/null) || continue
        [ "$now" = "$before" ] || break
    done
    { [ -n "$now" ] && [ "$now" != "$before" ]; } || die "$host did not come back"
    # The host answers before its daemon does.
    on "$host" systemctl start runner-controller.service </dev/null
    on "$host" runner-controller undrain </dev/null
    await_well "$host"
}
boot_of() { on "$1" cat /proc/sys/kernel/random/boot_id </dev/null; }

rollback() {
    local host=$1 profile=/nix/var/nix/profiles/system
    note "$host: back to the system before"
    on "$host" nix-env --profile $profile --rollback </dev/null
    on "$host" $profile/bin/switch-to-configuration switch </dev/null
    await_well "$host"
}

# Whoever installs a system with only the placeholder's key in it is locked out for good.
have_operators() {
    ! grep -Eq '^ *placeholder *=' "$root/hosts/operators.nix" ||
        die "hosts/operators.nix has a key of nobody's; put your SSH public key in place of the placeholder"
}

# For every host: goes on past one that does not answer, and says so at the end.
everywhere() {
    local all host failed=()
    all=$(hosts)
    for host in $all; do
        echo "--- $host"
        "$@" "$host" || failed+=("$host")
    done
    ((${#failed[@]} == 0)) || die "no good answer from: ${failed[*]}"
}
status() { on "$1" runner-status </dev/null; }
storage() { on "$1" bash -s <"$root/scripts/storage.sh"; }

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

# A token from an argument, else from a prompt, else from standard input.
read_token() {
    local token=${1-}
    if [ -n "$token" ]; then
        note "warning: a token given as an argument stays in your shell's history and is seen by every user of this machine while this runs; give it on standard input, or wait to be asked"
    elif [ -t 0 ]; then
        read -rsp "GitHub token: " token
        echo >&2
    else
        IFS= read -r token || true
    fi
    [[ $token =~ ^[A-Za-z0-9_]{20,255}$ ]] ||
        die "that is no GitHub token: it has 20 to 255 letters, digits and underscores, and nothing else"
    printf '%s' "$token"
}

# Encrypts standard input for those whom secrets.nix names.
encrypt() {
    local recipients new key arguments=()
    recipients=$(nix --extra-experimental-features nix-command eval --raw --file "$rules" --apply \
        'rules: builtins.concatStringsSep "\n" rules."github-runner.age".publicKeys' </dev/null)
    while IFS= read -r key; do
        [ -z "$key" ] || arguments+=(--recipient "$key")
    done <<<"$recipients"
    ((${#arguments[@]})) || die "secrets/secrets.nix names nobody who could open github-runner.age"
    new=$(mktemp "$secret.XXXXXX")
    if ! age --encrypt --armor "${arguments[@]}" >"$new"; then
        rm -f "$new"
        die "age did not encrypt; the old secret is untouched"
    fi
    chmod 644 "$new"
    mv "$new" "$secret"
    note "secrets/github-runner.age holds the new token; commit it"
}

encrypt_token() {
    local token
    token=$(read_token "${1-}")
    # Not a here-string, which some versions of bash put into a file.
    printf '%s\n' "$token" | encrypt
}

set_token() {
    local host=$1
    address_of "$host" >/dev/null
    have_operators
    encrypt_token "${2-}"
    switch "$host"
    note "$host: restarting the controller, which no job notices"
    on "$host" systemctl restart runner-controller.service </dev/null
    if ! await_well "$host"; then
        die "$host: GitHub does not accept the token, or something else stands in the way; see above"
    fi
    note "$host: GitHub accepts the token"
    local other
    other=$(hosts | grep -vxF "$host" | xargs)
    [ -z "$other" ] || note "still with the old token: $other; just apply-all brings the new one"
}

agenix_edit() { (cd "$root/secrets" && agenix --edit "${1:-github-runner.age}"); }
agenix_rekey() { (cd "$root/secrets" && agenix --rekey); }

# bootstrap HOST ADDRESS: wipes the machine at that address and makes it this host. ADDRESS may be
# written IP=1.2.3.4.
bootstrap() {
    local host=$1 ip=${2-}
    shift 2 || die "which address? just bootstrap-$host 1.2.3.4"
    ip=${ip#IP=}
    hosts | grep -qxF "$host" || die "no host $host in hosts/addresses.json; it has: $(hosts | xargs)"
    [[ $ip =~ ^[A-Za-z0-9:][A-Za-z0-9.:-]*$ ]] || die "\"$ip\" is no address"
    have_operators
    # Global, for the trap that removes it.
    extra=$(mktemp -d "${XDG_RUNTIME_DIR:-/tmp}/bootstrap.XXXXXX")
    trap 'rm -rf "$extra"' EXIT
    host_key "$host" "$extra/etc/ssh"
    # The first boot opens the secret with that key, so it is encrypted for it before.
    if ! agenix_rekey </dev/null; then
        note "you cannot open the secrets, so the token is needed anew"
        encrypt_token
    fi
    note "$host: installing over whatever is on $ip"
    nixos-anywhere --flake "$root#$host" --target-host "root@$ip" --extra-files "$extra" \
        --generate-hardware-config nixos-generate-config "$root/hosts/$host/hardware.nix" "$@"
    sed -E -i "s|^( *\"$host\" *: *\")[^\"]+|\1$ip|" "$addresses"
    note "$host: installed; commit hosts/ and secrets/, then: just apply-$host"
}

# host_key HOST DIR: a new host key in DIR, its public half in secrets.nix.
host_key() {
    local host=$1 dir=$2 key line
    line="^( *$host = \")ssh-ed25519 [^\"]*(\";)\$"
    [ "$(grep -cE "$line" "$rules")" = 1 ] || die "secrets/secrets.nix has no line: $host = \"ssh-ed25519 …\";"
    (umask 077 && mkdir -p "$dir")
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
drain) drain_host "$2" ;;
undrain) on "$2" runner-controller undrain </dev/null ;;
reboot) reboot_host "$2" ;;
set-token) set_token "${@:2}" ;;
encrypt-token) encrypt_token "${@:2}" ;;
agenix-edit) agenix_edit "${@:2}" ;;
agenix-rekey) agenix_rekey ;;
*) die "no command \"${1-}\"; see: just --list" ;;
esac
