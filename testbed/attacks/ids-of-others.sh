#!/bin/bash
# tries: a file of another slot's job, which it somehow sees
# as: root
# wall: own ids for each slot
# expect: Permission denied
# before: echo secret >/srv/kept/private; chown 268436457:268436457 /srv/kept/private; chmod 600 /srv/kept/private
# after: rm /srv/kept/private
# given: nspawn +--bind-ro=/srv/kept:/run/kept
# without: nspawn --private-users=268435456:65536

if said=$(cat /run/kept/private 2>&1); then
  echo "got $said"
  exit 0
fi
echo "$said"
exit 1
