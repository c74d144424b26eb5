#!/usr/bin/perl
# tries: to read what other jobs of this slot told of themselves
# as: root
# wall: mode of the FIFO
# expect: Permission denied
# without: host chmod 666 /run/runner-controller/slots/$MACHINE/started
#   undo chmod 622 /run/runner-controller/slots/$MACHINE/started

use strict; use Fcntl;
if (sysopen(my $fifo, '/run/runner/started', O_RDONLY | O_NONBLOCK)) {
    print "got to read it\n";
    exit 0;
}
print "$!\n";
exit 1;
