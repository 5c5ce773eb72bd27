#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Limits that change while their keys are in use, from Redis as from memory:
# a raised or lowered rate, another burst, another algorithm, another window,
# by a reload or by a variable, on one node or on two that differ.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;

my %stores = (redis => '', memory => 'store=local');

sub http {
    my (%zone) = @_;

    my ($zones, $locations) = ('', '');

    for my $store (sort keys %stores) {
        for my $name (sort keys %zone) {
            my ($rate, $limit) = @{$zone{$name}};

            $zones .= "coord_limit_req_zone \$arg_k zone=${name}_$store "
                      . "$rate $stores{$store};\n";
            $locations .= "location /$store/$name { coord_limit_req "
                          . "zone=${name}_$store $limit; empty_gif; }\n";
        }
    }

    return <<"EOF";
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    $zones
    server {
        listen 127.0.0.1:%%PORT%%;
        $locations
    }
EOF
}

sub ask {
    my ($n, $path, $times) = @_;

    my %seen;
    $seen{$n->get($path)->status}++ for 1 .. $times;

    return join ' ', map { "$_ x$seen{$_}" } sort keys %seen;
}


# --- a reload ---

my %before = (
    raised => ['rate=1r/m', 'burst=3 nodelay'],
    lowered => ['rate=10r/m', 'burst=9 nodelay'],
    other => ['rate=2r/m', 'burst=30 nodelay'],
    windowed => ['rate=3r/h algorithm=fixed_window', ''],
    logged => ['rate=3r/h algorithm=sliding_log', ''],
    shorter => ['rate=3r/h algorithm=fixed_window', ''],
);

my %after = (
    raised => ['rate=100r/s', 'burst=3 nodelay'],
    lowered => ['rate=1r/m', 'burst=9 nodelay'],
    other => ['rate=3r/h algorithm=fixed_window', ''],
    windowed => ['rate=2r/m algorithm=sliding_log', ''],
    logged => ['rate=2r/m', 'burst=1 nodelay'],
    shorter => ['rate=3r/2s algorithm=fixed_window', ''],
);

my $n = $t->node(name => 'n', http => http(%before))->start;

for my $store (sort keys %stores) {
    is(ask($n, "/$store/raised?k=a", 6), '200 x4 429 x2', "$store: 1r/m");
    is(ask($n, "/$store/lowered?k=a", 12), '200 x10 429 x2', "$store: 10r/m");
    is(ask($n, "/$store/other?k=a", 3), '200 x3', "$store: a bucket");
    is(ask($n, "/$store/$_?k=a", 5), '200 x3 429 x2', "$store: $_")
        for qw(windowed logged shorter);
}

$n->conf(http => http(%after));
$n->reload;

for my $store (sort keys %stores) {
    is(ask($n, "/$store/raised?k=a", 4), '200 x4',
       "$store: a raised rate helps at once");
    is(ask($n, "/$store/lowered?k=a", 3), '429 x3',
       "$store: a lowered rate forgives nothing");

    for my $name (qw(other windowed logged)) {
        like(ask($n, "/$store/$name?k=a", 5), qr/^200 x[23] 429 x[23]$/,
             "$store: $name: another algorithm counts apart, and limits");
    }

    # two periods of the new rate, and a moment

    ok($t->wait_for(sub { $n->get("/$store/shorter?k=a")->status == 200 }, 5),
       "$store: a shorter window opens soon");
}

my %ttl = map { $_ => $r->command('PTTL', $_) } @{$r->command('KEYS', '*')};

is_deeply([grep { $ttl{$_} == -1 } keys %ttl], [], 'each key has a TTL');


# --- by a variable ---

my @zones = (v => ['rate=$arg_r', 'burst=$arg_b nodelay'],
             window => ['rate=$arg_r algorithm=sliding_window', ''],
             log => ['rate=$arg_r algorithm=sliding_log', ''],
             fixed => ['rate=$arg_r algorithm=fixed_window', '']);

my $v = $t->node(name => 'v', workers => 2, http => http(@zones));
$v->start;

my $w = $t->node(name => 'w', http => http(@zones));
$w->start;

for my $store (sort keys %stores) {
    my @nodes = $store eq 'redis' ? ($v, $w) : ($v, $v);
    my $path = "/$store/v?k=rate";

    is(ask($nodes[0], "$path&r=1r/m&b=2", 4), '200 x3 429 x1', "$store: 1r/m");
    is(ask($nodes[1], "$path&r=100r/s&b=100", 3), '200 x3',
       "$store: 100r/s at once");

    # what was used counts in requests, at whatever rate

    $path = "/$store/v?k=used";

    is(ask($nodes[0], "$path&r=10r/m&b=9", 10), '200 x10', "$store: ten");
    is(ask($nodes[1], "$path&r=1r/h&b=9", 1), '429 x1',
       "$store: nothing is forgiven");

    # as in limit_req it drains from its last use on at the rate that is asked
    # with, also if it has drained at the one before

    $path = "/$store/v?k=drained";

    is(ask($nodes[0], "$path&r=20r/s&b=0", 1), '200 x1', "$store: 20r/s");
    $t->rest(0.5);
    is(ask($nodes[1], "$path&r=1r/h&b=0", 2), '429 x2',
       "$store: a slower rate finds what was used last");

    # windows of different lengths, of callers who take turns: each forgets
    # nothing for the others

    for my $name (qw(window log fixed)) {
        my %passed;

        for my $rate ('3r/h', '90r/d', '80r/2d', '70r/30m') {
            $passed{$rate} = 0;
        }

        for (1 .. 5) {
            for my $rate (sort keys %passed) {
                my $status = $nodes[$_ % 2]->get("/$store/$name?k=turns"
                                                 . "&r=$rate")->status;
                $passed{$rate}++ if $status == 200;
            }
        }

        cmp_ok($passed{'3r/h'}, '<=', 3, "$store: $name: three an hour");
        is_deeply([@passed{'90r/d', '80r/2d', '70r/30m'}], [5, 5, 5],
                  "$store: $name: others have more");
    }

    # a smaller burst finds more than it may have, and leaves it

    $path = "/$store/v?k=burst&r=60r/m";

    is(ask($nodes[0], "$path&b=39", 40), '200 x40', "$store: forty");
    is(ask($nodes[1], "$path&b=0", 2), '429 x2', "$store: a burst of none");

    if ($store eq 'redis') {
        cmp_ok($r->command('PTTL', 'coord:rl:v_redis:{burst}'), '>', 30000,
               'the key lives as long as what is in it');
    }

    my $passed = () = ask($nodes[0], "$path&b=39", 20) =~ /200 x(\d+)/g;
    my ($few) = ask($nodes[0], "$path&b=39", 10) =~ /200 x(\d+)/;
    cmp_ok($few || 0, '<', 5, "$store: and forgave nothing");

    # one slow key does not prolong the others

    ask($nodes[0], "/$store/v?k=slow&r=1r/366d&b=0", 1);
    ask($nodes[0], "/$store/v?k=fast&r=10r/s&b=0", 1);
}

cmp_ok($r->command('PTTL', 'coord:rl:v_redis:{slow}'), '>', 86400_000,
       'a slow key lives long');
cmp_ok($r->command('PTTL', 'coord:rl:v_redis:{fast}'), '<', 10_000,
       'a fast one does not');


# --- two nodes, half of the fleet at another rate, at the same time ---

my @at = ('r=60r/h&b=9', 'r=600r/h&b=9');
my @r = $t->parallel([map { ($v, $w)[$_ % 2]->req("/redis/v?k=fleet&"
                                                  . $at[$_ % 2]) } 0 .. 39]);

is(scalar(grep { $_->status == 200 } @r), 10,
   'two rates on one key: ten of ten, not twenty');


# --- what cannot be true is put right: a server whose clock was set back ---

sub bucket {
    my ($ahead) = @_;

    my ($s, $us) = @{$r->command('TIME')};

    # the class of 100 ms: 27th octave, 17th of 32 parts

    my $class = (26 << 5) + ((100_000_000 >> 21) & 31) + 1;

    return ($class << 51) + ($s - 1577836800 + $ahead) * 1_000_000 + $us;
}

is($v->get('/redis/v?k=class&r=10r/s&b=0')->status, 200, 'a bucket');
my $number = $r->command(qw(BITFIELD coord:rl:v_redis:{class} GET u63 0))->[0];
is($number >> 51, bucket(0) >> 51, 'its class');

$r->command(qw(BITFIELD coord:rl:v_redis:{back} SET u63 0), bucket(3600),
            qw(SET u32 64), 1);
$r->command(qw(EXPIRE coord:rl:v_redis:{back} 7200));

ok($t->wait_for(sub { $v->get('/redis/v?k=back&r=10r/s&b=0')->status == 200 },
                10), 'a bucket an hour ahead opens at once');
cmp_ok($r->command(qw(PTTL coord:rl:v_redis:{back})), '<', 10_000,
       'and lives as others do');

my $f = $t->node(name => 'f', http => http(
    f => ['rate=10r/s algorithm=fixed_window', '']))->start;

is(ask($f, '/redis/f?k=back', 1), '200 x1', 'a window');
$r->command('SET', 'coord:rf:f_redis:{back}', pack('N', 10), 'EX', 3600);
ok($t->wait_for(sub { $f->get('/redis/f?k=back')->status == 200 }, 10),
   'a window that ends in an hour opens soon');

# nobody of this module makes one without an end, a restored dump may

$r->command('SET', 'coord:rf:f_redis:{ever}', pack('N', 10));
is($f->get('/redis/f?k=ever')->status, 429, 'a window without an end is full');
cmp_ok($r->command(qw(PTTL coord:rf:f_redis:{ever})), '>', 0, 'has one now');
ok($t->wait_for(sub { $f->get('/redis/f?k=ever')->status == 200 }, 10),
   'and opens soon');


# --- another store ---

sub moved {
    my ($store) = @_;

    return <<"EOF";
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_limit_req_zone \$arg_k zone=bucket rate=1r/h $store;
    coord_limit_req_zone \$arg_k zone=window rate=1r/h $store
                         algorithm=fixed_window;
    add_header X-Source \$coord_limit_req_source always;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /bucket { coord_limit_req zone=bucket; empty_gif; }
        location /window { coord_limit_req zone=window; empty_gif; }
    }
EOF
}

my $moved = $t->node(name => 'moved', http => moved(''))->start;

for my $zone (qw(bucket window)) {
    ok($t->wait_for(sub { ($moved->get("/$zone?k=m")->header('X-Source') || '')
                          eq 'deny_cache' }, 10), "$zone: known");
}

$moved->conf(http => moved('store=local'));
$moved->reload;

for my $zone (qw(bucket window)) {
    my $r = $moved->get("/$zone?k=m");
    is($r->status . ' ' . $r->header('X-Source'), '200 memory',
       "$zone: what Redis had refused is not known to the memory store");
}


# --- more than can be counted ---

like($t->conf_error(http => http(b => ['rate=1r/d', 'burst=100000 nodelay'])),
     qr/"burst=100000" is too much for zone "b_memory" .*, the most is 6670/,
     'a burst that takes more than 18 years');

done_testing();
