#!/bin/bash
# tries: files of the job next door, by a host's /proc that it somehow sees
# as: root
# wall: user namespace
# expect: Permission denied
# given: nspawn +--bind-ro=/proc:/run/host-proc
# without: nspawn --private-users=no

if said=$(cat "/run/host-proc/$SIBLING_LEADER/root/home/runner/canary" 2>&1); then
  echo "got $said"
  exit 0
fi
echo "$said"
exit 1
