#!/usr/bin/perl
# tries: to make control groups so deep that systemd cannot remove them
# as: root
# wall: depth of the unit's control group
# expect: Resource temporarily unavailable
# without: host echo max >/sys/fs/cgroup$(systemctl show -P ControlGroup $UNIT)/cgroup.max.depth undo
#   echo 24 >/sys/fs/cgroup$(systemctl show -P ControlGroup $UNIT)/cgroup.max.depth

use strict;
chdir '/sys/fs/cgroup' or die "$!";
my ($depth, $why) = (0, '');
while ($depth < 300) {
    unless (mkdir 'deep') { $why = "$!"; last }
    $depth++;
    chdir 'deep' or die "$!";
}
for (1 .. $depth) { chdir '..' or die "$!"; rmdir 'deep' or die "$!" }
if ($depth == 300) { print "got $depth levels\n"; exit 0 }
print "$why\n";
exit 1;
