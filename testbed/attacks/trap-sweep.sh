#!/bin/bash
# tries: to have the sweep remove what is the host's, by links in the directory that the host sees
# as: root
# in: lives
# wall: sweep follows nothing
# expect: the victim is whole
# no-control: it is the sweep's own way to remove
# witness: [ "$(cat /srv/host-canary)" = host-secret ] && [ -d /srv/kept ] && { echo "the victim is whole"; exit 1; }; echo "got it removed"

[ "$1" = plant ] || exit 0
cd /run/host/unix-export || exit 2
ln -s /srv/host-canary link && ln -s /srv/kept links && ln -s / root && mkdir -p deep/er && ln -s /srv deep/er/srv || exit 2
