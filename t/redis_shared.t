#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Requests of one turn of the event loop share a transaction: each gets its
# own answer, and what is wrong with one of them is no concern of the others.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
my $redis = $t->redis('maxmemory-policy noeviction');
my $origin = $t->origin(routes => { '/' => { delay => 60 } });
my $admin = $redis->connect;

my $n = $t->node(name => 'n', http => <<'EOF')->start;
    coord_store main { server %%REDIS%%; key_prefix s:; timeout 5s;
                       connect_timeout 5s;
                       breaker failures=1000 cooldown=100ms; }

    coord_limit_req_zone $arg_k zone=b:1m rate=1r/h;
    coord_limit_req_zone $arg_k zone=w:1m rate=7r/h algorithm=fixed_window;
    coord_limit_req_zone $arg_k zone=c:1m rate=11r/h algorithm=sliding_window;
    coord_limit_req_zone $arg_k zone=l:1m rate=13r/h algorithm=sliding_log;
    coord_limit_conn_zone $arg_k zone=n:1m;
    coord_session_zone $arg_k zone=s:1m;

    add_header X-Req $coord_limit_req_status always;
    add_header X-Conn $coord_limit_conn_status always;
    add_header X-Session $coord_session_status:$coord_session_value always;

    server {
        listen 127.0.0.1:%%PORT%%;
        location /b { coord_limit_req zone=b burst=2 nodelay; empty_gif; }
        location /w { coord_limit_req zone=w; empty_gif; }
        location /c { coord_limit_req zone=c; empty_gif; }
        location /l { coord_limit_req zone=l; empty_gif; }
        location /n { coord_limit_conn n 17; empty_gif; }
        location /hold {
            coord_limit_conn n 100;
            proxy_pass http://%%ORIGIN%%/;
        }
        location /s { coord_session zone=s bind=$arg_v mismatch=pass;
                      empty_gif; }
        location /none { return 204; }
    }
EOF

my @clients = map { $n->connect } 1 .. 60;
$_->request(path => '/none') for @clients;


# all paths in one turn of the event loop: the worker finds them together

sub together {
    my @paths = @_;

    my ($worker) = $n->workers;
    kill 'STOP', $worker;

    for my $i (0 .. $#paths) {
        $clients[$i]->send("GET $paths[$i] HTTP/1.1\r\nHost: a\r\n\r\n");
    }

    kill 'CONT', $worker;

    return map { $clients[$_]->response } 0 .. $#paths;
}


sub calls {
    my ($name) = @_;

    my $info = $admin->command('INFO', 'commandstats');

    return $info =~ /^cmdstat_$name:calls=(\d+)/m ? $1 : 0;
}


sub remaining {
    my ($r) = @_;

    return ($r->header('RateLimit') || '') =~ /;r=(\d+)/ ? $1 : 'none';
}


my %first = (b => 2, w => 6, c => 10, l => 12, n => 16);
my @kinds = sort keys %first;


# the right answer for each, whatever stands beside it

for my $round (1, 2) {
    my @asked = map { my $k = $_; map { [$_, $k] } @kinds, 's' } 1 .. 10;
    my $before = calls('multi');
    my @got = together(map { "/$_->[0]?k=$_->[1]&v=v$_->[1]" } @asked);
    my $multi = calls('multi') - $before;

    cmp_ok($multi, '>', 0, "round $round: in transactions");
    cmp_ok($multi, '<', 20, "round $round: 60 requests in $multi of them");

    for my $i (0 .. $#asked) {
        my ($kind, $k) = @{ $asked[$i] };
        my $name = "round $round: /$kind, key $k";

        is($got[$i]->status, 200, $name);

        if ($kind eq 's') {
            is($got[$i]->header('X-Session'),
               ($round == 1 ? 'NEW' : 'BOUND') . ":v$k", "$name: value");
            next;
        }

        # a connection is given back

        is(remaining($got[$i]), $first{$kind}
                                - ($kind eq 'n' ? 0 : $round - 1),
           "$name: remaining");
    }
}


# one key, refused exactly

is_deeply([sort map { $_->status } together(('/b?k=x') x 10)],
          [(200) x 3, (429) x 7], 'ten for three places in one transaction');
is_deeply([map { $_->status } together(('/b?k=x', '/b?k=y') x 3)],
          [(429, 200) x 3], 'refused and passed in turn');


# a value of another type costs its own request the protection

$admin->command('SET', 's:rl:b:{bad}', 'x' x 100);
$admin->command('DEL', 's:rg:l:{bad}');
$admin->command('SET', 's:rg:l:{bad}', 'text', 'PX', 60000);

my @got = together(map { ("/l?k=bad", "/l?k=good$_") } 1 .. 10);
is(join(' ', map { $_->header('X-Req') } @got),
   join(' ', ('BYPASSED PASSED') x 10), 'WRONGTYPE: only that key');


# a command that is not allowed takes others along at most once

$admin->command('ACL', 'SETUSER', 'default', '-zremrangebyrank');

together(map { ('/l?k=acl', "/b?k=acl$_") } 1 .. 10);
@got = together(map { ('/l?k=acl', "/b?k=acls$_") } 1 .. 10);
is(join(' ', map { $_->header('X-Req') } @got),
   join(' ', ('BYPASSED PASSED') x 10), 'NOPERM: apart from then on');

$admin->command('ACL', 'SETUSER', 'default', '+zremrangebyrank');
$admin->command('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
$t->wait_for(sub { $n->get('/b?k=' . rand)->header('X-Req') eq 'PASSED' }, 10);

my $before = calls('multi');
@got = together(map { "/l?k=again$_" } 1 .. 20);
is(join(' ', map { $_->header('X-Req') } @got), join(' ', ('PASSED') x 20),
   'allowed again');
cmp_ok(calls('multi') - $before, '<', 10, 'reconnected: shared again');

is($admin->command('EXISTS', 's:rg:l:{again1}:tmp'), 0, 'no temporary key');


# no memory: Redis takes nothing inside MULTI then, not even what frees memory

my $held = $n->connect;
$held->send("GET /hold?k=oom HTTP/1.1\r\nHost: a\r\n\r\n");
ok($t->wait_for(sub { $admin->command('ZCARD', 's:cc:n:{oom}') == 1 }, 10),
   'a place is held');

$admin->command('CONFIG', 'SET', 'maxmemory', 1);

my ($worker) = $n->workers;
kill 'STOP', $worker;
$held->reset;
$clients[$_]->send("GET /b?k=oom$_ HTTP/1.1\r\nHost: a\r\n\r\n")
    for 1 .. 5;
kill 'CONT', $worker;

is(join(' ', map { $clients[$_]->response->header('X-Req') } 1 .. 5),
   join(' ', ('BYPASSED') x 5), 'no memory: requests pass');

$admin->command('CONFIG', 'SET', 'maxmemory', 0);
ok($t->wait_for(sub { !$admin->command('EXISTS', 's:cc:n:{oom}') }, 20),
   'memory again: the release is repeated, long before the lease is over');
$n->allow(qr{error reply: OOM});

$n->allow(qr{\[emerg\] .* error reply: NOPERM});

done_testing();
