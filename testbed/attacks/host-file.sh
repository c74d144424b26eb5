#!/bin/bash
# tries: a file of the host that everybody there may read
# as: root
# wall: mount namespace
# expect: is nowhere
# without: nspawn +--bind-ro=/srv/host-canary:/run/host-canary

for file in /srv/host-canary /../../../srv/host-canary /proc/[0-9]*/root/srv/host-canary /proc/[0-9]*/cwd/srv/host-canary \
  /run/host/srv/host-canary /run/runner/../../srv/host-canary /run/host-canary; do
  [ -r "$file" ] && echo "got $(cat "$file")" && exit 0
done
echo "the file is nowhere"
exit 1
