#!/usr/bin/env bash
# What takes space on a host, and what of it each container has. Runs there, as root, from standard
# input; reads no file that a container wrote and runs no program of one.
set -euo pipefail

echo "filesystems"
df -h --output=target,fstype,size,used,avail,pcent / /nix/store /boot /var/lib/runner-layers /run 2>/dev/null |
    awk '!seen[$0]++' || true

echo "containers: root, and docker's storage where there is any"
for link in /run/systemd/machines/*; do
    case $link in
    */unit:* | */\*) continue ;;
    esac
    machine=${link##*/}
    leader=$(machinectl show --property=Leader --value "$machine" 2>/dev/null) || continue
    for path in / /var/lib/docker; do
        # A filesystem of the job's own making may never answer, and docker may not be there.
        line=$(timeout 5 df -h --output=fstype,size,used,avail,pcent "/proc/$leader/root$path" 2>/dev/null | tail -n 1) || continue
        printf '  %-13s %-16s %s\n' "$machine" "$path" "$line"
    done
done

if command -v docker >/dev/null; then
    echo "docker of the host"
    timeout 30 docker system df || true
fi

echo "layers on disk: files without a name, held by loop devices"
losetup --list --noheadings --output NAME,BACK-FILE 2>/dev/null |
    awk '/runner-layers/ { print "  " $1, $2; found = 1 } END { if (!found) print "  none" }' || true

echo "Nix store: what roots of runners hold"
for root in /nix/var/nix/gcroots/runner-controller/*; do
    [ -L "$root" ] || continue
    printf '  %-13s %s\n' "${root##*/}" "$(readlink "$root")"
done
journalctl --disk-usage
