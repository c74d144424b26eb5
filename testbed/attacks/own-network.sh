#!/bin/bash
# tries: to change its own link and addresses
# as: root
# wall: capabilities
# expect: Operation not permitted
# without: capability CAP_NET_ADMIN

said=$(ip address add 10.9.9.9/32 dev host0 2>&1) && ip address delete 10.9.9.9/32 dev host0 && echo "got another address" && exit 0
echo "$said"
exit 1
