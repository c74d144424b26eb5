#!/bin/bash
# tries: services of the host that listen to a multicast group, such as mDNS
# as: job
# wall: firewall
# expect: nothing was heard
# without: firewall
# before: rm -f /run/testbed/heard-group; systemd-run --quiet --collect --unit=attack-group
#   socat -u UDP4-RECVFROM:5353,ip-add-membership=224.0.0.251:$LINK,reuseaddr,fork OPEN:/run/testbed/heard-group,creat,append;
#   until ss -Hlun sport = :5353 | grep -q .; do :; done
# witness: sleep 0.3; if grep -qs multicast /run/testbed/heard-group; then echo "got a service of the host";
#   else echo "nothing was heard"; exit 1; fi
# after: systemctl stop attack-group.service

exec perl -MIO::Socket::INET -e '
  my $s = IO::Socket::INET->new(Proto => "udp", PeerAddr => "224.0.0.251", PeerPort => 5353) or die "socket: $!";
  for (1 .. 3) { $s->send("multicast\n") or die "send: $!" }'
