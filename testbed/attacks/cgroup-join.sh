#!/bin/bash
# tries: to leave its limits, by joining a cgroup of the host that it somehow sees
# as: root
# wall: user namespace
# expect: Permission denied
# given: nspawn +--bind=/sys/fs/cgroup:/run/host-cgroup
# without: nspawn --private-users=no

if said=$( (echo $BASHPID >/run/host-cgroup/system.slice/attack-canary.service/cgroup.procs) 2>&1); then
  echo "got out"
  exit 0
fi
echo "$said"
exit 1
