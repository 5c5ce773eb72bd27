#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# on_failure=local: while Redis is away each node decides by its own memory, and
# has its share of a limit by the number of nodes that were there, as far as
# that is known.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

use JSON::PP;

my $t = Coord->new;
my $redis = $t->redis;
my $origin = $t->origin(default => sub { { delay => $_[0]{args}{d} || 0 } });

my @algorithms = qw(leaky_bucket token_bucket fixed_window sliding_window
                    sliding_log);

sub conf {
    my ($prefix, $status) = @_;

    my $zones = join '', map {
        my $rate = /bucket/ ? '1r/h' : '9r/h';
        "coord_limit_req_zone \$arg_k zone=$_:1m rate=$rate algorithm=$_;\n"
    } @algorithms;

    my $locations = join '', map {
        my $burst = /leaky/ ? 'burst=8 nodelay' : /token/ ? 'burst=8' : '';
        "location = /$_ { coord_limit_req zone=$_ $burst cost=\$arg_c;"
        . " proxy_pass http://%%ORIGIN%%; }\n"
    } @algorithms;

    return <<"EOF";
        coord_store main {
            server %%REDIS%%;
            key_prefix $prefix;
            timeout 5s;
            connect_timeout 5s;
            breaker failures=1 cooldown=200ms;
        }
        coord_on_failure local;
        $zones
        coord_limit_conn_zone \$arg_k zone=conn:1m;
        coord_lock_zone \$arg_k zone=lock:1m;

        add_header X-Source \$coord_limit_req_source always;

        server {
            listen 127.0.0.1:%%PORT%%;
            $locations
            location = /conn {
                coord_limit_conn conn 4;
                proxy_pass http://%%ORIGIN%%;
            }
            location = /wait {
                coord_limit_conn conn 4 wait=100ms;
                proxy_pass http://%%ORIGIN%%;
            }
            location = /lock {
                coord_lock zone=lock;
                proxy_pass http://%%ORIGIN%%;
            }
            $status
        }
EOF
}

my $status = 'location = /status { coord_status; }';

my ($a, $b) = map { $t->node(name => $_, workers => 2,
                             http => conf('two:', $status))->start } qw(a b);
my $alone = $t->node(name => 'c', workers => 2,
                     http => conf('one:', $status))->start;
my $unknown = $t->node(name => 'd', workers => 2, http => conf('two:', ''))
                ->start;

sub nodes {
    my $json = decode_json($_[0]->get('/status?format=json')->body);
    return scalar @{ $json->{fleet}{nodes} };
}

sub passes {
    my ($node, $path, $n) = @_;

    return scalar grep { $_->status == 200 }
                  map { $node->get($path) } 1 .. $n;
}

sub at_once {
    my ($node, $path, $n) = @_;

    return scalar grep { $_->status == 200 } $node->parallel($n, $path);
}

ok($t->wait_for(sub { nodes($a) == 2 && nodes($b) == 2 && nodes($alone) == 1 },
                20), 'two nodes know of each other');

is(passes($a, "/$_?k=there", 12), 9, "$_: all of the limit in Redis")
    for @algorithms;

$redis->stop;

ok($t->wait_for(sub { ($a->get('/fixed_window?k=x')->header('X-Source') || '')
                      eq 'fallback' }, 5), 'Redis is away');

for my $z (@algorithms) {
    is(passes($_, "/$z?k=k", 12), 5, "$z: half of it on each of two nodes")
        for $a, $b;
    is(passes($_, "/$z?k=k", 12), 9, "$z: all of it on a node that is alone")
        for $alone, $unknown;
    is($a->get("/$z?k=cost&c=7")->status, 200,
       "$z: what costs more than the share and less than the limit fits once");
    is($a->get("/$z?k=cost&c=7")->status, 429, "$z: and not twice");
    is($a->get("/$z?k=more&c=10")->status, 429, "$z: above the limit never");
}

is(at_once($_, '/conn?k=k&d=2', 6), 2, 'two places of four on each')
    for $a, $b;
is(at_once($alone, '/conn?k=k&d=2', 6), 4, 'all four on a node alone');
is(at_once($a, '/lock?k=k&d=2', 3), 1, 'a lock is one');

my $hold = $a->connect;
$hold->send("GET /conn?k=w&d=60 HTTP/1.1\r\nHost: a\r\n\r\n");
$t->wait_for(sub { grep { $_->{args}{k} eq 'w' } $origin->requests('/conn') },
             5);
is(at_once($a, '/wait?k=w&d=2', 4), 1, 'who waits asks for the share');
$hold->close;


# a share is asked for once: Redis is there again

$redis->run;
ok($t->wait_for(sub {
    $a->get('/status?format=prometheus')->body
        =~ /^coord_store_workers\{store="main"\} 2$/m
}, 30), 'all workers are connected');
ok($t->wait_for(sub {
    20 == grep { ($_->header('X-Source') || '') eq 'redis' }
               $a->parallel(20, '/fixed_window?k=y&c=0')
}, 10), 'Redis is back');
is(at_once($a, '/conn?k=back&d=2', 6), 4, 'all of the limit');
is(passes($a, '/token_bucket?k=back', 12), 9, 'all of the rate');


# what memory granted in place of Redis is given back to memory, also where
# Redis was to be asked in the short way of a window that it has begun

my $n = $t->node(name => 'n', http => <<'EOF')->start;
    coord_store main { server %%REDIS%%; key_prefix n:; timeout 5s;
                       connect_timeout 5s; breaker failures=1 cooldown=200ms; }
    coord_on_failure local;
    coord_limit_req_zone $arg_k zone=w:1m rate=9r/h algorithm=fixed_window;
    coord_limit_req_zone $arg_k zone=b:1m rate=1r/h;
    add_header X-Source $coord_limit_req_source always;
    add_header X-Remaining $coord_limit_req_remaining always;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /w { coord_limit_req zone=w; empty_gif; }
        location /both { coord_limit_req zone=w; coord_limit_req zone=b;
                         empty_gif; }
    }
EOF

$n->allow(qr/\[(warn|error)\].*coord store: "main"/);

is($n->get('/w?k=begun')->header('X-Source'), 'redis', 'a window in Redis');
$redis->stop;
is(join(' ', map { $n->get('/both?k=begun')->status } 1 .. 4),
   '200 429 429 429', 'the other limit refuses');

my $r = $n->get('/w?k=begun');
is($r->header('X-Source'), 'fallback', 'a window in memory');
is($r->header('X-Remaining'), 7, 'two places are taken of it');

done_testing();
