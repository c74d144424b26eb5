#!/bin/bash
# tries: a program that runs as root of the host, for every user who starts it
# as: root
# in: bare
# wall: user namespace
# expect: belongs to uid
# without: nspawn --private-users=no
# witness: set -- $(stat -c '%u %a' /proc/$LEADER/root/tmp/attack-suid); [ "$1" = 0 ] && [ "$2" = 4755 ] && echo "got uid $1, mode $2" && exit 0;
#   echo "belongs to uid $1, mode $2"; exit 1

cp /bin/true /tmp/attack-suid && chown 0:0 /tmp/attack-suid && chmod 4755 /tmp/attack-suid || exit 2
