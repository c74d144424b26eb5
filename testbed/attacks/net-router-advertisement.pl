#!/usr/bin/perl
# tries: to be the host's router for IPv6, by telling it so
# as: root
# in: docker
# wall: firewall
# expect: the host does not believe it
# given: host sysctl -qw net.ipv6.conf.$LINK.accept_ra=2 net.ipv6.conf.$LINK.autoconf=1 net.ipv6.conf.$LINK.disable_ipv6=0;
#   ip -6 address replace fe80::1/64 dev $LINK nodad
#   undo sysctl -qw net.ipv6.conf.$LINK.disable_ipv6=1
# without: firewall
# witness: sleep 0.5; ip -6 address show dev $LINK | grep -o 2001:db8:bad | sed 's/^/got an address of the host in /' | grep . && exit 0;
#   echo "the host does not believe it"; exit 1

use strict; use Socket qw(:all);
my $setting = '/proc/sys/net/ipv6/conf/host0/disable_ipv6';
sub set { open(my $file, '>', $setting) or die "$setting: $!"; print $file shift; close $file or die "$!" }
set(0);
system('ip -6 address replace fe80::2/64 dev host0 nodad') == 0 or die 'address';
my ($index) = `cat /sys/class/net/host0/ifindex` =~ /(\d+)/ or die;
socket(my $s, AF_INET6, SOCK_RAW, 58) or die "raw socket: $!";
# A receiver drops every advertisement with another hop limit (RFC 4861).
setsockopt($s, 41, 18, pack('i', 255)) or die "hop limit: $!";
my $prefix = pack('C C C C N N N', 3, 4, 64, 0xc0, 3600, 3600, 0) . inet_pton(AF_INET6, '2001:db8:bad::');
my $said = pack('C C n C C n N N', 134, 0, 0, 64, 0, 1800, 0, 0) . $prefix;
my $to = pack_sockaddr_in6(0, inet_pton(AF_INET6, 'ff02::1'), $index, 0);
for (1 .. 3) { send($s, $said, 0, $to) or die "send: $!" }
select(undef, undef, undef, 0.2);
set(1);
exit 0;
