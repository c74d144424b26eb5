#!/bin/bash
# tries: environments of everybody, by a host's /proc that it somehow sees
# as: root
# wall: user namespace
# expect: Permission denied
# given: nspawn +--bind-ro=/proc:/run/host-proc
# without: nspawn --private-users=no

if said=$(head -c 4096 "/run/host-proc/$SIBLING_LEADER/environ" 2>&1 | tr '\0' ' ') && [[ $said == *container=* ]]; then
  echo "got the environment of process $SIBLING_LEADER"
  exit 0
fi
echo "$said"
exit 1
