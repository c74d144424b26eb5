#!/usr/bin/perl
# tries: to keep the daemon busy with connections
# as: job
# wall: bounded handshake
# expect: the daemon answers
# no-control: it is the daemon's own way to accept
# witness: timeout 5 runner-controller status --json >/dev/null && { echo "the daemon answers"; exit 1; }; echo "got the daemon to be silent"

use strict; use IO::Socket::UNIX;
my ($end, @open) = (time + 3);
while (time < $end) {
    my $s = IO::Socket::UNIX->new(Peer => '/run/runner/jit.sock', Blocking => 0) or next;
    push @open, $s;
    shift @open if @open > 500;
}
exit 0;
