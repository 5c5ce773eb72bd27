#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_limit_req on two nodes with two workers each: every algorithm admits
# exactly its quota out of 200 parallel requests, on one Redis; and the same
# configuration without a store on the memory of one node.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
my $redis = $t->redis;

my %zone = (
    leaky_bucket => ['rate=1r/m', 'burst=49 nodelay'],
    token_bucket => ['rate=1r/m', 'burst=49'],
    fixed_window => ['rate=50r/h', ''],
    sliding_window => ['rate=50r/h', ''],
    sliding_log => ['rate=50r/h', ''],
);

my @algorithms = sort keys %zone;


sub conf {
    my ($store) = @_;

    my $zones = join '', map {
        "coord_limit_req_zone \$arg_k zone=$_:1m $zone{$_}[0] algorithm=$_;\n"
    } @algorithms;

    my $locations = join '', map {
        "location /$_ { coord_limit_req zone=$_ $zone{$_}[1]; empty_gif; }\n"
    } @algorithms;

    return <<"EOF";
        $store
        $zones

        coord_limit_req_zone \$arg_k zone=second:1m rate=1r/m;
        coord_limit_req_zone \$arg_k zone=third:1m rate=1000r/m
                             algorithm=fixed_window;
        coord_limit_req_zone \$arg_k zone=plan:1m rate=\$arg_rate;
        coord_limit_req_zone \$arg_k zone=fast:1m rate=1000r/s;

        server {
            listen 127.0.0.1:%%PORT%%;

            $locations

            location /all {
                coord_limit_req zone=leaky_bucket burst=49 nodelay;
                coord_limit_req zone=sliding_log;
                coord_limit_req zone=fixed_window;
                coord_limit_req zone=sliding_window;
                coord_limit_req zone=second burst=4 nodelay;
                empty_gif;
            }

            location /plan {
                coord_limit_req zone=plan burst=\$arg_burst nodelay;
                empty_gif;
            }

            location /nowait { coord_limit_req zone=fast; empty_gif; }

            location /large { coord_limit_req zone=second burst=9 nodelay;
                              empty_gif; }
            location /small { coord_limit_req zone=second burst=1 nodelay;
                              empty_gif; }
        }
EOF
}


my @nodes = map {
    $t->node(name => $_, workers => 2,
             http => conf('coord_store main { server %%REDIS%%; timeout 30s; '
                        . 'connect_timeout 30s; }'))
      ->start
} qw(a b);

my $memory = $t->node(name => 'm', workers => 2, http => conf(''))->start;


sub count {
    my ($nodes, $path) = @_;

    my @r = $t->parallel([map { $nodes->[$_ % @$nodes]->req($path) } 0 .. 199],
                         timeout => 60);
    my %n;
    $n{$_->status}++ for @r;

    return \%n;
}


# exactly the quota

for my $algorithm (@algorithms) {
    is_deeply(count(\@nodes, "/$algorithm?k=one"), { 200 => 50, 429 => 150 },
              "$algorithm: 50 of 200 over two nodes");
    is_deeply(count([$memory], "/$algorithm?k=one"), { 200 => 50, 429 => 150 },
              "$algorithm: 50 of 200 in the memory of one node");
    is($nodes[0]->get("/$algorithm?k=two")->status, 200,
       "$algorithm: another key");
    is($nodes[1]->get("/$algorithm")->status, 200,
       "$algorithm: an empty key is not limited") for 1 .. 2;
}


# keys in Redis

my $r = $redis->connect;
my @keys = sort @{$r->command('KEYS', '*')};

is(scalar @keys, 10, 'one Redis key for each zone and key');
ok((grep { $_ eq 'coord:rf:fixed_window:{one}' } @keys), 'a plain key');
is(scalar(grep { $r->command('PTTL', $_) == -1 } @keys), 0,
   'every key has a TTL');
cmp_ok($r->command('PTTL', 'coord:rl:leaky_bucket:{one}'), '>', 49 * 60000,
       'the TTL of a bucket is at least its time to full');

$nodes[0]->get('/fixed_window?k=' . ('x' x 65));
$nodes[0]->get('/fixed_window?k=a%7Db');
is(scalar(grep { /^coord:rf:fixed_window:\{~[0-9a-f]{32}\}$/ }
          @{$r->command('KEYS', '*')}), 2, 'other keys stand as digests');


# several limits: the tightest decides, and the others lose nothing by it

for my $nodes (\@nodes, [$memory]) {
    my $where = @$nodes > 1 ? 'redis' : 'memory';

    is_deeply(count($nodes, '/all?k=several'), { 200 => 5, 429 => 195 },
              "$where: the tightest of five limits");

    my ($told, %left);

    ok($t->wait_for(sub {
        $told = $nodes->[0]->get('/all?k=several')->header('RateLimit');
        %left = $told =~ /"(\w+)";r=(\d+)/g;
        4 == grep { $left{$_} == 45 } qw(fixed_window sliding_log
                                         sliding_window leaky_bucket)
    }, 3), "$where: a refusal tells what is left of the others") or diag($told);

    for my $zone (qw(fixed_window sliding_log sliding_window leaky_bucket)) {
        is_deeply(count($nodes, "/$zone?k=several"),
                  { 200 => 45, 429 => 155 },
                  "$where: $zone has 45 of 50 left: refused requests "
                  . 'took nothing');
    }
}


# one zone with two bursts: neither caller spoils the other's

for my $n ($nodes[0], $memory) {
    my @large = map { $n->get('/large?k=mixed')->status } 1 .. 8;
    is_deeply([grep { $_ != 200 } @large], [], 'eight fit into a burst of 9');

    my @small = map { $n->get('/small?k=mixed')->status } 1 .. 5;
    is_deeply(\@small, [(429) x 5], 'none fits into a burst of 1');

    cmp_ok($r->command('PTTL', 'coord:rl:second:{mixed}'), '>', 7.5 * 60000,
           'the small burst does not cut the time-to-full') if $n == $nodes[0];

    my @more = map { $n->get('/large?k=mixed')->status } 1 .. 4;
    is_deeply(\@more, [200, 200, 429, 429], 'two are left of the burst of 9');
}


# variables

is($nodes[0]->get('/plan?k=v&rate=1r/m&burst=1')->status, 200, 'rate, burst');
is($nodes[1]->get('/plan?k=v&rate=1r/m&burst=1')->status, 200, 'the burst');
is($nodes[1]->get('/plan?k=v&rate=1r/m&burst=1')->status, 429, 'over it');
is($nodes[1]->get('/plan?k=v&rate=1r/m&burst=2')->status, 200, 'a better plan');
is($nodes[0]->get('/plan?k=v&rate=1x/m&burst=1')->status, 200,
   'an invalid rate limits nothing');
ok($nodes[0]->wait_log(qr/invalid rate "1x\/m" in zone "plan"/, 5),
   'and is logged');
is($nodes[0]->get('/plan?k=v&rate=1r/m&burst=-1')->status, 200,
   'an invalid burst limits nothing');
ok($t->wait_for(sub {
    $nodes[0]->get('/plan?k=v&rate=1r/m&burst=-1');
    return $nodes[0]->log =~ /invalid burst "-1" in zone "plan"/;
}, 5), 'and is logged, not more than one of these a second');


# without a burst nothing is delayed, however fast requests come

for my $where ($nodes[0], $memory) {
    $where->parallel(100, '/nowait?k=fast') for 1 .. 3;
    is(scalar($where->log_lines(qr/delaying request/)), 0, 'nothing delayed');
    ok(scalar($where->log_lines(qr/by zone "fast"/)), 'but refused');
}


# the log of a refusal

# the first of all may have been told from the memory of the node

my ($line) = grep { !/deny_cache/ }
             $nodes[0]->log_lines(qr/limiting requests/);
like($line, qr/\[error\].*limiting\ requests,\ excess:\ \d+\.\d{3}\ by\ zone
               \ "\w+",\ client:\ 127\.0\.0\.1,\ .*,\ host:\ "\w+",
               \ key:\ [0-9a-f]{8},\ outcome:\ REJECTED,
               \ store:\ main\ \(redis\)$/x, 'a line in the words of limit_req');
is(scalar(grep { /key: one/ } $nodes[0]->log_lines(qr/limiting/)), 0,
   'the key is not in it');

done_testing();
