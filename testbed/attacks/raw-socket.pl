#!/usr/bin/perl
# tries: to send frames and packets that the job composed
# as: root
# wall: capabilities
# expect: Operation not permitted
# without: capability CAP_NET_RAW

use strict; use Socket;
socket(my $s, 17, SOCK_RAW, 0x0300) or print("packet socket: $!\n"), exit 1;
print "got a packet socket\n";
