#!/bin/bash
# tries: to hang the host's machined, and every start with it, by an os-release that never ends
# as: root
# wall: containers are not registered
# expect: machined answers
# without: nspawn --register=yes
# witness: call() { timeout 5 busctl call org.freedesktop.machine1 /org/freedesktop/machine1 org.freedesktop.machine1.Manager "$@"; };
#   timeout 5 machinectl list >/dev/null;
#   call ListMachines >/dev/null && { echo "machined answers"; exit 1; }; echo "got machined"
# after: systemctl kill --signal=KILL systemd-machined.service || true

rm -f /etc/os-release /usr/lib/os-release
mkfifo /etc/os-release /usr/lib/os-release || exit 2
echo "got a FIFO in the place of os-release"
