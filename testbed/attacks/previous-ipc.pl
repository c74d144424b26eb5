#!/usr/bin/perl
# tries: System V shared memory that the job before left
# as: job
# in: lives
# wall: IPC namespace
# expect: No such file or directory
# without: nspawn SYSTEMD_NSPAWN_SHARE_NS_IPC=1
# after: ipcs -m | awk '$1 == "0x00005701" { print $2 }' | xargs -r -n 1 ipcrm -m

use strict;
my $plant = ($ARGV[0] // '') eq 'plant';
my $id = shmget(0x5701, 64, $plant ? 01600 : 0600);
unless (defined $id) { print "$!\n"; exit($plant ? 2 : 1) }
if ($plant) { shmwrite($id, 'secret', 0, 6) or die "$!"; exit 0 }
shmread($id, my $text, 0, 6) or die "$!";
print "got $text\n";
exit 0;
