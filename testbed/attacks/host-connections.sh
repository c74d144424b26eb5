#!/bin/bash
# tries: with whom the host speaks
# as: job
# wall: network namespace
# expect: no connection is visible
# without: nspawn !--network-veth-extra

# 7777 and 127.0.0.1, as the kernel writes them.
grep -m 1 '0100007F:1E61' /proc/net/tcp | sed 's/^/got /' | grep . && exit 0
echo "no connection is visible"
exit 1
