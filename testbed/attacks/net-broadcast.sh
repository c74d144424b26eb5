#!/bin/bash
# tries: services of the host that listen to broadcasts, such as DHCP
# as: job
# wall: firewall
# expect: nothing was heard
# without: firewall
# before: rm -f /run/testbed/heard-all; systemd-run --quiet --collect --unit=attack-all
#   socat -u UDP4-RECVFROM:67,reuseaddr,broadcast,fork OPEN:/run/testbed/heard-all,creat,append;
#   until ss -Hlun sport = :67 | grep -q .; do :; done
# witness: sleep 0.3; if grep -qs broadcast /run/testbed/heard-all; then echo "got a service of the host";
#   else echo "nothing was heard"; exit 1; fi
# after: systemctl stop attack-all.service

exec perl -MIO::Socket::INET -e '
  my $s = IO::Socket::INET->new(Proto => "udp", PeerAddr => "255.255.255.255", PeerPort => 67, Broadcast => 1) or die "socket: $!";
  for (1 .. 3) { $s->send("broadcast\n") or die "send: $!" }'
