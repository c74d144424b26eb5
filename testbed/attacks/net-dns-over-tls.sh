#!/bin/bash
# tries: DNS over TLS at a server that the configuration does not name
# as: job
# wall: firewall
# expect: no answer
# without: firewall

exec 2>&1
said=$(timeout 1 bash -c "exec 3<>/dev/tcp/$INTERNET/853; printf 'GET / HTTP/1.0\r\n\r\n' >&3; cat <&3")
status=$?
if [ $status = 0 ] && [ -n "$said" ]; then
  echo "got ${said##*$'\n'}"
  exit 0
fi
[ $status = 124 ] && echo "no answer" || echo "$said"
exit 1
