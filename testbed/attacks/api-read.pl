#!/usr/bin/perl
# tries: the daemon's API, whose socket it somehow sees
# as: root
# in: visitor
# wall: mode of the socket
# expect: Permission denied
# without: host chmod 666 /run/runner-controller/api/api.sock undo chmod 660 /run/runner-controller/api/api.sock

use strict; use IO::Socket::UNIX;
my $api = IO::Socket::UNIX->new(Peer => '/run/host-api.sock');
unless ($api) { print "$!\n"; exit 1 }
print $api "GET /status HTTP/1.0\r\nHost: localhost\r\n\r\n";
my $said = <$api> // '';
if ($said =~ m{^HTTP/1\.. 200}) { print "got the status\n"; exit 0 }
print $said;
exit 1;
