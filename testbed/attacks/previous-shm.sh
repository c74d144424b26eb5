#!/bin/bash
# tries: shared memory that the job before left
# as: job
# in: lives
# wall: own /dev/shm for each life
# expect: nothing is left
# without: nspawn !--tmpfs +--bind=/srv/kept-shm:/dev/shm
# after: rm -f /srv/kept-shm/attack-left

[ "$1" = plant ] && { echo secret >/dev/shm/attack-left || exit 2; exit 0; }
[ -e /dev/shm/attack-left ] && echo "got $(cat /dev/shm/attack-left)" && exit 0
echo "nothing is left"
exit 1
