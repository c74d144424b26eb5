#!/bin/bash
# tries: which machines the LAN has, by ICMP
# as: root
# wall: firewall
# expect: 100% packet loss
# without: firewall

said=$(ping -n -c 1 -W 1 "$NEIGHBOUR" 2>&1)
status=$?
echo "${said//$'\n'got /}" | grep 'packet loss'
[ $status = 0 ] && echo "got $NEIGHBOUR"
exit $status
