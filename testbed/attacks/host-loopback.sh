#!/bin/bash
# tries: a service that listens on the host's loopback, and trusts every local user
# as: job
# wall: network namespace
# expect: Connection refused
# without: nspawn !--network-veth-extra

ip link set lo up 2>/dev/null
if said=$(timeout 2 bash -c 'exec 3<>/dev/tcp/127.0.0.1/7777; cat <&3' 2>&1); then
  echo "got $said"
  exit 0
fi
echo "$said"
exit 1
