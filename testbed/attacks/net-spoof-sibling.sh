#!/bin/bash
# tries: to send as the job next door, so that what comes of it is laid to that one
# as: root
# in: docker
# wall: firewall
# expect: nothing was heard
# without: firewall
# before: rm -f /run/testbed/heard
# witness: sleep 0.3; if grep -s "spoofed" /run/testbed/heard; then echo "got a packet through as another";
#   else echo "nothing was heard"; exit 1; fi

ip address add "$SIBLING/32" dev host0 || exit 2
perl -MIO::Socket::INET -e '
  my $s = IO::Socket::INET->new(Proto => "udp", LocalAddr => $ENV{SIBLING}, PeerAddr => $ENV{INTERNET}, PeerPort => 9999) or die "socket: $!";
  $s->send("spoofed") or die "send: $!"'
status=$?
ip address delete "$SIBLING/32" dev host0
[ $status = 0 ] || exit 2
