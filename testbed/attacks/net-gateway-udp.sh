#!/bin/bash
# tries: a service of the host that takes datagrams, at the container's gateway
# as: job
# wall: firewall
# expect: nothing was heard
# without: firewall
# before: rm -f /run/testbed/heard-udp; systemd-run --quiet --collect --unit=attack-udp
#   socat -u UDP4-RECVFROM:514,reuseaddr,fork OPEN:/run/testbed/heard-udp,creat,append;
#   until ss -Hlun sport = :514 | grep -q .; do :; done
# witness: sleep 0.3; if grep -qs datagram /run/testbed/heard-udp; then echo "got a service of the host";
#   else echo "nothing was heard"; exit 1; fi
# after: systemctl stop attack-udp.service

exec perl -MIO::Socket::INET -e '
  my $s = IO::Socket::INET->new(Proto => "udp", PeerAddr => $ENV{GATEWAY}, PeerPort => 514) or die "socket: $!";
  for (1 .. 3) { $s->send("datagram\n") or die "send: $!" }'
