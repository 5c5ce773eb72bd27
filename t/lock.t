#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_lock: mutual exclusion over two nodes, fencing numbers, lost locks.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Util qw(slurp);
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis('appendonly yes', 'appendfsync always');
my $r = $redis->connect;

# refuses a token that is not above the highest one it has seen: a fence

my $highest = 0;
my $origin = $t->origin(routes => {
    '/work' => { delay => 0.02, body => 'work' },
    '/hold' => { delay => 60 },
    '/wait' => { delay => 60 },
    '/fence' => sub {
        my ($req) = @_;
        my $token = $req->{headers}{'x-token'}[0];
        return { status => 412, body => "stale" } if $token < $highest;
        $highest = $token;
        return { body => $token };
    },
});

my $http = <<'EOF';
    coord_store main { server %%REDIS%%; timeout 3s; connect_timeout 1s;
                       breaker failures=5 cooldown=100ms; }
    coord_lock_zone $arg_k zone=one:1m lease=2s;
    coord_lock_zone $arg_k zone=mem:1m store=local;
    log_format c '$uri $arg_k $status $coord_lock_status $coord_lock_token';
    proxy_read_timeout 100s;
    proxy_set_header X-Token $coord_lock_token;

    server {
        listen 127.0.0.1:%%PORT%% backlog=1024;
        access_log %%NODEDIR%%/c.log c;
        add_header X-Status $coord_lock_status always;
        add_header X-Token $coord_lock_token always;
        add_header X-Pid $pid always;

        location = /work { coord_lock zone=one wait=60s;
                           proxy_pass http://%%ORIGIN%%; }
        location = /hold { coord_lock zone=one; proxy_pass http://%%ORIGIN%%; }
        location = /wait { coord_lock zone=one wait=30s;
                           proxy_pass http://%%ORIGIN%%; }
        location = /fence { coord_lock zone=one wait=5s;
                            proxy_pass http://%%ORIGIN%%; }
        location = /try { coord_lock zone=one; empty_gif; }
        location = /closed { coord_lock zone=one on_failure=closed;
                             empty_gif; }
        location = /status { coord_lock zone=one; coord_lock_status 409;
                             empty_gif; }
        location = /dry { coord_lock zone=one wait=5s; coord_lock_dry_run on;
                          empty_gif; }
        location = /mem { coord_lock zone=mem wait=60s;
                          proxy_pass http://%%ORIGIN%%/work; }
        location = /auth { deny all; coord_lock zone=one; empty_gif; }
    }
EOF

my %opt = (workers => 2, http => $http);
my $n1 = $t->node(name => 'n1', %opt)->start;
my $n2 = $t->node(name => 'n2', %opt)->start;

sub held { $r->command('ZCARD', "coord:lk:one:{$_[0]}") }

sub open_request {
    my ($node, $path) = @_;
    my $c = $node->connect;
    $c->send("GET $path HTTP/1.1\r\nHost: a\r\n\r\n");
    return $c;
}

sub soon {
    my ($code, $seconds, $name) = @_;
    ok($t->wait_for($code, $seconds), $name);
}


# configuration

sub conf {
    my ($text, $like) = @_;
    like($t->conf_error(http => "coord_lock_zone \$uri zone=z; "
                        . "server { listen 127.0.0.1:%%PORT%%; $text }"),
         $like, $text);
}

conf('coord_lock zone=z wait=1s on_failure=closed;', qr/^$/);
conf('coord_lock wait=1s;', qr/must have "zone" parameter/);
conf('coord_lock zone=y;', qr/unknown zone "y"/);
conf('coord_lock zone=z; coord_lock zone=z;', qr/is duplicate/);
conf('coord_lock zone=z foo;', qr/invalid parameter "foo"/);
conf('coord_lock zone=z wait=1s queue=5;', qr/invalid parameter "queue=5"/);


# one at a time, whatever the node

my @all = $t->parallel([map { ($_ % 2 ? $n1 : $n2)->req('/work?k=x') }
                        1 .. 100], timeout => 90);
is(scalar(grep { $_->status == 200 } @all), 100, 'all 100 pass');
is($origin->overlap('/work'), 1, 'one at a time');
my @tokens = map { $_->{headers}{'x-token'}[0] } $origin->requests('/work');
is(scalar(grep { $tokens[$_] <= $tokens[$_ - 1] } 1 .. $#tokens), 0,
   'each token is above the one before');
is(scalar @tokens, 100, '100 tokens');
soon(sub { held('x') == 0 }, 3, 'free');
cmp_ok($r->command('PTTL', 'coord:lk:one:{x}:t'), '>', 80_000_000,
       'the number outlives the lock');
is(scalar(grep { $_->header('X-Status') eq 'DELAYED' } @all) > 50, 1,
   'DELAYED');

$origin->reset_counters;
@all = $n1->parallel(40, '/mem?k=x', timeout => 90);
is(scalar(grep { $_->status == 200 } @all), 40, 'in memory: all pass');
is($origin->overlap('/work'), 1, 'one at a time');
@tokens = map { $_->{headers}{'x-token'}[0] } $origin->requests('/work');
is(scalar(grep { $tokens[$_] <= $tokens[$_ - 1] } 101 .. $#tokens), 0,
   'and the number grows');
is(scalar @tokens, 140, 'each has one');


# refused

my $hold = open_request($n1, '/hold?k=r');
soon(sub { held('r') == 1 }, 5, 'held');
my $no = $n2->get('/try?k=r');
is($no->status, 423, 'Locked');
is($no->header('Content-Type'), 'application/problem+json', 'a problem');
is($no->header('Retry-After'), 1, 'Retry-After');
is($no->header('X-Status'), 'REJECTED', 'REJECTED');
is($no->header('X-Token'), undef, 'no token');
is($n2->get('/status?k=r')->status, 409, 'coord_lock_status');
is($n2->get('/dry?k=r')->header('X-Status'), 'REJECTED_DRY_RUN', 'dry run');
ok($n2->wait_log(qr/refusing request by lock zone "one", client: .*, key: /, 3), 'logged');
is($n2->get('/try?k=other')->header('X-Status'), 'ACQUIRED', 'ACQUIRED');
is($n2->get('/try')->header('X-Status'), undef, 'an empty key: no lock');
is($n2->get('/auth?k=auth')->status, 403, 'not before the access phase');
is($r->command('EXISTS', 'coord:lk:one:{auth}:t'), 0, 'it did not ask');
$hold->close;
soon(sub { $n2->get('/try?k=r')->status == 200 }, 5, 'free again');


# expiry and restart of Redis: the number only grows

my $token = $n1->get('/try?k=t')->header('X-Token');
$r->command('DEL', 'coord:lk:one:{t}:t');
my $next = $n2->get('/try?k=t')->header('X-Token');
cmp_ok($next, '>', $token, 'when the number is forgotten');
$redis->stop;
$redis->run;
$r = $redis->connect;
$token = $t->wait_for(sub { $n1->get('/try?k=t')->header('X-Token') }, 10);
is($token, $next + 1, 'and over a restart that keeps it');

# each worker connects again by itself

ok($_->all_workers('/try?k=back', sub { $_[0]->header('X-Token') }),
   'all workers have a store again') for $n1, $n2;


# a request that loses its lock: the holder was stopped for too long

$hold = open_request($n1, '/hold?k=l');
soon(sub { held('l') == 1 }, 5, 'held');
my $first;
soon(sub {
    ($first) = map { $_->{headers}{'x-token'}[0] }
               grep { $_->{args}{k} eq 'l' } $origin->requests('/hold');
    return defined $first;
}, 5, 'its request is at the origin');
my @stopped = $n1->workers;
kill 'STOP', @stopped;
my $second;
my $wait = open_request($n2, '/wait?k=l');
soon(sub {
    ($second) = map { $_->{headers}{'x-token'}[0] }
                grep { $_->{args}{k} eq 'l' } $origin->requests('/wait');
    return defined $second;
}, 15, 'another one gets it when it has run out');
cmp_ok($second, '>', $first, 'with a higher number');
kill 'CONT', @stopped;
ok($n1->wait_log(qr/request lost its lock in zone "one", token: $first/, 8),
   'the first one is told');
sleep 1.5;
is(scalar $n1->log_lines(qr/request lost its lock/), 1, 'once');
is(held('l'), 1, 'the other one still has it');
$hold->close;
soon(sub { slurp($n1->file('c.log')) =~ m{^/hold l 499 LOST $first$}m }, 5,
     'LOST in the log');
is(held('l'), 1, 'its end frees nothing of others');
$wait->close;
soon(sub { held('l') == 0 }, 5, 'free');

is($n1->get('/fence?k=f')->status, 200, 'an upstream with a fence');


# Redis restarts with its data, and is away

my $before = $n1->get('/try?k=p')->header('X-Token');
$redis->stop;
is($n1->get('/try?k=p')->header('X-Status'), 'BYPASSED', 'open: BYPASSED');
is($n1->get('/try?k=p')->header('X-Token'), undef, 'without a token');
is($n1->get('/closed?k=p')->status, 503, 'closed: 503');

done_testing();
