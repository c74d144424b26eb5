#!/usr/bin/perl
# tries: to write into the host's journal in another's name
# as: job
# wall: mount namespace
# expect: No such file or directory
# without: nspawn +--bind=/run/systemd/journal/socket:/run/host-journal

use strict; use Socket;
socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die "$!";
if (defined send($s, "SYSLOG_IDENTIFIER=runner-controller\nMESSAGE=attack\n", 0, pack_sockaddr_un('/run/host-journal'))) {
    print "got a line into it\n";
    exit 0;
}
print "$!\n";
exit 1;
