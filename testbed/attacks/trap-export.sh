#!/bin/bash
# tries: the same in the directory that the host may see of a container
# as: root
# in: bare
# wall: user namespace
# expect: belongs to uid
# without: nspawn --private-users=no
# witness: cd /proc/$(systemctl show -P MainPID $UNIT)/root/run/systemd/nspawn; set -- $(stat -c '%u %a' unix-export/$MACHINE/attack-suid $MACHINE/unix-export/attack-suid 2>/dev/null); [ "$1" = 0 ] && [ "$2" = 4755 ] && echo "got uid $1, mode $2" && exit 0;
#   echo "belongs to uid $1, mode $2"; exit 1

cp /bin/true /run/host/unix-export/attack-suid && chown 0:0 /run/host/unix-export/attack-suid && chmod 4755 /run/host/unix-export/attack-suid || exit 2
