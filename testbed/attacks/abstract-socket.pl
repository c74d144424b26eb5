#!/usr/bin/perl
# tries: a socket of the host that has no file, and so no mode
# as: job
# wall: network namespace
# expect: Connection refused
# without: nspawn !--network-veth-extra

use strict; use Socket;
socket(my $s, AF_UNIX, SOCK_STREAM, 0) or die "$!";
if (connect($s, pack('S a*', AF_UNIX, "\0attack-host"))) { print 'got ', <$s>; exit 0 }
print "$!\n";
exit 1;
