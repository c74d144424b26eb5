#!/bin/bash
# tries: files that the job before left
# as: job
# in: lives
# wall: own layer for each life
# expect: nothing is left
# without: nspawn +--bind=/srv/kept:/var/tmp
# after: rm -rf /srv/kept/attack-left

places=(/home/runner /home/runner/work /tmp /var/tmp /opt/actions-runner)
if [ "$1" = plant ]; then
  for place in "${places[@]}"; do echo secret >"$place/attack-left" || exit 2; done
  exit 0
fi
for place in "${places[@]}"; do
  [ -e "$place/attack-left" ] && echo "got $place/attack-left" && exit 0
done
echo "nothing is left"
exit 1
