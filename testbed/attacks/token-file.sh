#!/bin/bash
# tries: the daemon's token, by a directory that it somehow sees
# as: root
# wall: user namespace
# expect: Permission denied
# given: nspawn +--bind-ro=/etc/runner-controller:/run/host-etc
# without: nspawn --private-users=no

if said=$(cat /run/host-etc/token 2>&1); then
  echo "got a token of ${#said} characters"
  exit 0
fi
echo "$said"
exit 1
