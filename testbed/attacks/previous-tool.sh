#!/bin/bash
# tries: to give the next job a tool that this job made, as root
# as: root
# in: lives
# wall: own layer for each life
# expect: nothing is left
# without: nspawn +--bind=/srv/kept:/usr/local/bin
# after: rm -f /srv/kept/attack-tool

if [ "$1" = plant ]; then
  printf '#!/bin/sh\n' >/usr/local/bin/attack-tool && chmod 755 /usr/local/bin/attack-tool || exit 2
  exit 0
fi
tool=$(PATH=/usr/local/bin command -v attack-tool) && echo "got $tool" && exit 0
echo "nothing is left"
exit 1
