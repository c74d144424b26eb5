#!/usr/bin/perl
# tries: a socket of a rare address family, whose kernel code few people test
# as: root
# wall: address families
# expect: Address family not supported by protocol
# given: capability CAP_NET_RAW
# without: unit RestrictAddressFamilies=

use strict; use Socket;
socket(my $s, 44, SOCK_RAW, 0) or print("AF_XDP: $!\n"), exit 1;
print "got a socket\n";
