#!/bin/bash
# tries: IPv6, which the addresses of the rules say nothing of
# as: root
# in: docker
# wall: firewall
# expect: 100% packet loss
# given: host sysctl -qw net.ipv6.conf.$LINK.disable_ipv6=0; ip -6 address replace fe80::1/64 dev $LINK nodad
#   undo sysctl -qw net.ipv6.conf.$LINK.disable_ipv6=1
# without: firewall

sysctl -qw net.ipv6.conf.host0.disable_ipv6=0 2>/dev/null || echo 0 >/proc/sys/net/ipv6/conf/host0/disable_ipv6 || exit 2
ip -6 address replace fe80::2/64 dev host0 nodad || exit 2
said=$(ping -6 -n -c 1 -W 1 fe80::1%host0 2>&1)
status=$?
echo 1 >/proc/sys/net/ipv6/conf/host0/disable_ipv6
echo "$said" | grep 'packet loss'
[ $status = 0 ] && echo "got the host at fe80::1"
exit $status
