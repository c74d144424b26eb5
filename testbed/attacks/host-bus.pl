#!/usr/bin/perl
# tries: the host's bus, with machined, systemd and polkit on it
# as: job
# wall: mount namespace
# expect: No such file or directory
# without: nspawn +--bind=/run/dbus/system_bus_socket:/run/host-bus

use strict; use IO::Socket::UNIX;
my $bus = IO::Socket::UNIX->new(Peer => '/run/host-bus');
unless ($bus) { print "$!\n"; exit 1 }
$bus->autoflush(1);
# The bus sees who we are, and is told nothing else (D-Bus specification, authentication protocol).
print $bus "\0AUTH EXTERNAL\r\n";
die 'no DATA' unless <$bus> =~ /^DATA/;
print $bus "DATA\r\n";
my $said = <$bus> // '';
if ($said =~ /^OK/) { print "got a place on it\n"; exit 0 }
print $said;
exit 1;
