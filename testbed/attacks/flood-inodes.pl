#!/usr/bin/perl
# tries: to use up all that a filesystem has for files
# as: job
# wall: files of the layer
# expect: No space left on device
# without: host nsenter -t $(systemctl show -P MainPID $UNIT) -m mount -o remount,nr_inodes=100000 /run/runner-controller/mnt/layer
#   undo nsenter -t $(systemctl show -P MainPID $UNIT) -m mount -o remount,nr_inodes=24576 /run/runner-controller/mnt/layer

use strict;
mkdir '/tmp/files' or die "$!";
my ($made, $why) = (0, '');
for my $number (1 .. 30000) {
    unless (open(my $file, '>', "/tmp/files/$number")) { $why = "$!"; last }
    $made++;
}
unlink "/tmp/files/$_" for 1 .. $made;
rmdir '/tmp/files';
if ($made == 30000) { print "got $made files\n"; exit 0 }
print "$why\n";
exit 1;
