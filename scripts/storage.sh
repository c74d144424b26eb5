#!/usr/bin/env bash
# Prints the use of space on a host, and each container's share. Runs on the host as root, from standard
# input. It reads no file that a container wrote, and runs no program of a container.
set -euo pipefail

layers=$(sed -n 's/^layer_dir = "\(.*\)"$/\1/p' /etc/runner-controller/config.toml 2>/dev/null) || true
layers=${layers:-/var/lib/runner-layers}

echo "filesystems"
df -h --output=target,fstype,size,used,avail,pcent / /nix/store /boot "$layers" /run 2>/dev/null |
    awk '!seen[$0]++' || true

echo "containers: root, and docker's storage if any"
for unit in $(systemctl list-units --plain --no-legend 'runner-*@*.service' | cut -d ' ' -f 1); do
    machine=${unit#runner-}
    machine=${machine%.service}
    machine=${machine/@/-}
    main=$(systemctl show -P MainPID "$unit")
    leader=
    children=()
    read -ra children 2>/dev/null <"/proc/$main/task/$main/children" || true
    # A container's init is process 1 of an inner namespace.
    for child in "${children[@]}"; do
        if grep -qs '^NSpid:.*[[:space:]]1$' "/proc/$child/status"; then leader=$child; fi
    done
    [ -n "$leader" ] || continue
    inside=/proc/$leader/root
    # A filesystem that a job made may never answer.
    line=$(timeout 5 df -h --output=fstype,size,used,avail,pcent "$inside/" 2>/dev/null | tail -n 1) || line="no answer"
    printf '  %-13s %-16s %s\n' "$machine" / "$line"
    # Docker's storage is a directory of the same layer. A job may have replaced it, so it is only counted,
    # and not for long.
    [ -n "$(find "$inside/var/lib/docker" -mindepth 1 -maxdepth 1 -print -quit 2>/dev/null)" ] || continue
    used=$(timeout 30 du -xsh "$inside/var/lib/docker" 2>/dev/null | cut -f 1) || used="not counted within 30 s"
    printf '  %-13s %-16s %s\n' "$machine" /var/lib/docker "${used:-no answer}"
done

if command -v docker >/dev/null; then
    echo "docker on the host"
    timeout 30 docker system df || true
fi

echo "layers on disk: files without a name, held by loop devices"
losetup --list --noheadings --output NAME,BACK-FILE 2>/dev/null |
    awk -v dir="$layers/" 'index($2, dir) == 1 { print "  " $1, $2; found = 1 } END { if (!found) print "  none" }' || true

echo "Nix store: systems that roots of runners keep"
for root in /nix/var/nix/gcroots/runner-controller/*; do
    [ -L "$root" ] || continue
    printf '  %-13s %s\n' "${root##*/}" "$(readlink "$root")"
done
journalctl --disk-usage
