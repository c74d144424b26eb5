#!/usr/bin/perl
# tries: to change what the daemon does, by an API that an operator left open
# as: root
# in: visitor
# wall: peer's uid
# expect: 403
# given: host chmod 666 /run/runner-controller/api/api.sock undo chmod 660 /run/runner-controller/api/api.sock
# without: service --property=Type=exec

use strict; use IO::Socket::UNIX;
# The control is root of the host.
my ($path) = grep { -S } '/run/host-api.sock', '/run/runner-controller/api/api.sock';
my $api = IO::Socket::UNIX->new(Peer => $path) or die "$path: $!";
# This changes nothing, because nothing is drained.
print $api "POST /undrain HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
my $said = <$api> // '';
if ($said =~ m{^HTTP/1\.. 20}) { print "got to change it\n"; exit 0 }
print $said;
exit 1;
