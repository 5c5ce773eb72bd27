#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# The way of an operator: a customer is refused; from the log line to his key,
# to what the API says of it, to the reset, with the same digits everywhere.  And
# a store that was away: how many requests passed, told by the log, the access
# log, the page and the metrics alike.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Util qw(slurp);

use Digest::SHA qw(sha256_hex);
use JSON::PP;
use Socket qw(inet_aton);

my $root = "$FindBin::Bin/..";
my $t = Coord->new;
my $redis = $t->redis;
my $admin = $redis->connect;

my $http = <<"EOF";
    coord_store main { server %%REDIS%%; timeout 300ms; connect_timeout 5s; }

    coord_limit_req_zone \$arg_k              zone=plain:1m rate=1r/h;
    coord_limit_req_zone \$http_authorization zone=secret:1m rate=1r/h;
    coord_limit_req_zone \$binary_remote_addr zone=address:1m rate=1r/h;
    coord_limit_req_zone \$arg_k              zone=window:1m rate=1r/h
                         algorithm=sliding_window;

    include $root/examples/coord_json.conf;
    access_log %%NODEDIR%%/json.log coord_json;

    server {
        listen 127.0.0.1:%%PORT%%;

        location /plain   { coord_limit_req zone=plain; empty_gif; }
        location /secret  { coord_limit_req zone=secret; empty_gif; }
        location /address { coord_limit_req zone=address; empty_gif; }
        location /window  { coord_limit_req zone=window; empty_gif; }

        location = /coord { access_log off; coord_status keys; }
        location /coord/  { access_log off; coord_api write; }
    }
EOF

my ($a, $b) = map { $t->node(name => $_, http => $http)->start } 'a', 'b';

my @bearer = (headers => { Authorization => "Bearer \"t\xc3\xb6ken\"" });

my %case = (
    plain => { path => '/plain?k=alice', digest => sha256_hex('alice') },
    secret => { path => '/secret', with => \@bearer,
                digest => sha256_hex("Bearer \"t\xc3\xb6ken\"") },
    address => { path => '/address', with => [ local => '127.0.0.3' ],
                 digest => sha256_hex(inet_aton('127.0.0.3')) },
    window => { path => '/window?k=a%20b', digest => sha256_hex('a%20b') },
);

for my $zone (sort keys %case) {
    walk($zone, %{ $case{$zone} });
}


# a store that does not answer, and its end

my $before = bypassed();

$redis->freeze;

my $passed = grep { $a->get("/plain?k=other$_")->status == 200 } 1 .. 7;
is($passed, 7, 'without Redis requests pass');

ok($a->wait_log(qr/coord store "main" has no answer: \d+ requests went by on_failure=open, reason: (?:timeout|breaker|connect)/, 10),
   'the log says so, with a number');

# the seconds that are over count there

ok($t->wait_for(sub { (page()->{unprotected} || '') =~ / \(7 of \d+\) were not made: requests passed 1 zone unprotected, store main: / },
                10), 'the page as well, with the same number')
    or diag(page()->{unprotected});

kill 'CONT', $redis->{pid};

# it may have no answer in time once more, on a busy machine

sub told {
    my $n = 0;

    $n += $_ for map { /answers again, (\d+) requests went by on_failure in \d+ms/ }
                     $a->log_lines(qr/answers again/);

    return $n;
}

my $all;

ok($t->wait_for(sub {
    $a->get('/address', local => '127.0.0.9');
    $all = told();
    return $all && bypassed() - $before == $all;
}, 30), 'the end is told, and how many there were: as many as metrics have');

cmp_ok($all, '>=', 7, 'all of them');

my @logged = map { decode_json($_) } split /\n/, slurp($a->file('json.log'));
is(scalar(grep { $_->{limit_req_status} eq 'BYPASSED' } @logged), $all,
   'and the access log');

done_testing();


sub page { decode_json($a->get('/coord?format=json')->body) }

sub bypassed {
    my $sum = 0;

    $sum += $_ for $a->get('/coord?format=prometheus')->body
        =~ /^coord_decisions_total\{.*outcome="bypassed"\} (\d+)$/mg;

    return $sum;
}


sub walk {
    my ($zone, %case) = @_;

    my @with = @{ $case{with} || [] };
    my $digits = substr $case{digest}, 0, 8;
    my $ask = sub { $_[0]->get($case{path}, @with)->status };

    is(join(' ', map { $ask->($_) } $a, $a, $b), '200 429 429',
       "$zone: refused on both nodes");

    # the log names zone and digits, and no key

    ok($a->wait_log(qr/limiting requests.* by zone "$zone"/, 10),
       "$zone: a line in the log");

    my ($line) = $a->log_lines(qr/limiting requests.* by zone "$zone"/);
    my ($found) = $line =~ /, key: ([0-9a-f]+), outcome: REJECTED, store: main/;

    is($found, $digits, "$zone: its digits");
    unlike($line =~ s/, request: "[^"]*"//r, qr/alice|ken"|a%20b/,
           "$zone: not the key");

    # digits to key: the page

    my ($of) = grep { $_->{zone} eq $zone } @{ page()->{zones} };
    my ($entry) = grep { $_->{digest} eq $found } @{ $of->{keys} };

    ok($entry, "$zone: the page knows whose they are");
    like($a->get('/coord?format=html')->body,
         qr{<td>\Q$entry->{key}\E</td><td>\d+</td><td>$found</td>},
         "$zone: shown beside each other");

    # and in Redis, unless it is plain there

    if ($entry->{key} =~ /^~/) {
        my $keys = $admin->command('KEYS', "coord:r*:$zone:{~$found*");
        cmp_ok(scalar @$keys, '>=', 1, "$zone: in Redis by its digits");
    }

    # the API: what it is, away with it

    my $path = "/coord/$of->{api}{route}/$zone/"
               . $entry->{key} =~ s/([^\w.~-])/sprintf '%%%02X', ord $1/ger;

    my $look = decode_json($a->get($path)->body);
    ok($look->{refused}, "$zone: the API says that it is refused");
    is($look->{digest}, $found, "$zone: the same digits");

    my $reset = decode_json($a->request('DELETE', $path)->body);
    ok($reset->{deleted}, "$zone: a reset");
    is($reset->{digest}, $found, "$zone: the same digits again");
    is(scalar(() = $a->log_lines(qr/coord api: deleting from limits of zone "$zone", key: $found,/)), 1,
       "$zone: and in the line of the reset");

    ok($t->wait_for(sub { $ask->($b) == 200 }, 10),
       "$zone: served again, on the other node");
}
