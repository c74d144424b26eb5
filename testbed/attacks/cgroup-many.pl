#!/usr/bin/perl
# tries: to make so many control groups that the host's systemd stalls while it removes them
# as: root
# wall: descendants of the unit's control group
# expect: Resource temporarily unavailable
# without: host echo max >/sys/fs/cgroup$(systemctl show -P ControlGroup $UNIT)/cgroup.max.descendants undo
#   echo 500 >/sys/fs/cgroup$(systemctl show -P ControlGroup $UNIT)/cgroup.max.descendants

use strict;
mkdir '/sys/fs/cgroup/many' or die "$!";
chdir '/sys/fs/cgroup/many' or die "$!";
my ($made, $why) = (0, '');
while ($made < 3000) {
    unless (mkdir $made + 1) { $why = "$!"; last }
    $made++;
}
for (1 .. $made) { rmdir $_ or die "$!" }
rmdir '/sys/fs/cgroup/many' or die "$!";
if ($made == 3000) { print "got $made groups\n"; exit 0 }
print "$why\n";
exit 1;
