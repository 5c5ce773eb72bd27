#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Leases while Redis does not answer: late grants, lost releases, requests that
# went on open.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;
my $origin = $t->origin(routes => { '/hold' => { delay => 60 } });

my $n = $t->node(name => 'n', workers => 1, http => <<'EOF')->start;
    coord_store main { server %%REDIS%%; timeout 1s; connect_timeout 1s;
                       breaker failures=3 cooldown=300ms; }
    coord_limit_conn_zone $arg_k zone=one:1m lease=60s;
    coord_limit_conn_zone $arg_k zone=wait:1m lease=60s;

    server {
        listen 127.0.0.1:%%PORT%%;
        proxy_read_timeout 100s;
        add_header X-Status $coord_limit_conn_status always;
        location = /hold { coord_limit_conn one 2;
                           proxy_pass http://%%ORIGIN%%; }
        location = /try { coord_limit_conn one 2; empty_gif; }
        location = /local { coord_limit_conn one 1 on_failure=local;
                            empty_gif; }
        location = /localhold { coord_limit_conn one 1 on_failure=local;
                                proxy_pass http://%%ORIGIN%%/hold; }
        location = /closed { coord_limit_conn one 2 on_failure=closed;
                             empty_gif; }
        location = /wait { coord_limit_conn wait 2 wait=5s; empty_gif; }
    }
EOF

sub held { $r->command('ZCARD', "coord:cc:one:{$_[0]}") }

sub open_request {
    my ($path) = @_;
    my $c = $n->connect;
    $c->send("GET $path HTTP/1.1\r\nHost: a\r\n\r\n");
    return $c;
}

sub soon {
    my ($code, $seconds, $name) = @_;
    ok($t->wait_for($code, $seconds), $name);
}

sub freeze { $redis->freeze }
sub thaw { kill 'CONT', $redis->{pid} if $redis->{pid} }

$t->at_end(\&thaw);

is($n->get('/try?k=0')->header('X-Status'), 'PASSED', 'Redis answers');


# places of the dead, whom nobody has dropped

$r->command('ZADD', 'coord:cc:one:{dead}', 1, 'a', 2, 'b', 3, 'c');
is($n->get('/try?k=dead')->header('X-Status'), 'PASSED', 'they are free');
soon(sub { held('dead') == 0 }, 5, 'and dropped');


# a grant that comes too late

my $watch = $redis->watch;
freeze();
my $late = $n->get('/try?k=late');
is($late->status, 200, 'the request goes on open');
is($late->header('X-Status'), 'BYPASSED', 'BYPASSED');
thaw();
soon(sub { $watch->calls('zadd', qr/^coord:cc:/) }, 5,
     'the lease was granted then');
soon(sub { held('late') == 0 }, 5, 'and given back, long before it expires');


# a release whose answer does not come in time, or never

sleep 1;
my $c = open_request('/hold?k=rel');
soon(sub { held('rel') == 1 && $origin->count('/hold') == 1 }, 5, 'held');
freeze();
$c->close;
sleep 3;
thaw();
soon(sub { held('rel') == 0 }, 15, 'released, long before it expires');


# requests that went on open are not released later

soon(sub { ($n->get('/try?k=1')->header('X-Status') || '') eq 'PASSED' }, 10,
     'Redis answers again');
freeze();
my @open = map { open_request('/hold?k=open') } 1 .. 3;
soon(sub { $origin->count('/hold') == 4 }, 10, 'three go on open');
is($n->get('/closed?k=x')->status, 503, 'closed: 503');
my $local = open_request('/localhold?k=x');
soon(sub { $origin->count('/hold') == 5 }, 10, 'local: one has the place');
is($n->get('/local?k=x')->status, 429, 'local: and no other');
$local->close;
soon(sub { $n->get('/local?k=x')->status == 200 }, 10, 'local: free again');
my $start = $t->ran;
is($n->get('/wait?k=x')->status, 200, 'wait= does not wait for Redis');
cmp_ok($t->ran - $start, '<', 4, 'it goes on open');
thaw();
soon(sub { ($n->get('/try?k=1')->header('X-Status') || '') eq 'PASSED' }, 10,
     'Redis is back');
soon(sub { held('open') == 0 }, 5, 'none of them holds a place');
my @held = map { open_request('/hold?k=open') } 1 .. 2;
soon(sub { held('open') == 2 }, 5, 'two others take the places');
undef @open;
sleep 1;
is(held('open'), 2, 'the end of the first ones frees nothing');
is($n->get('/try?k=open')->status, 429, 'the limit holds');
undef @held;
soon(sub { held('open') == 0 }, 5, 'free');

done_testing();
