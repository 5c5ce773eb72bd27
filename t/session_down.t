#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Sessions without Redis: what this node knows goes on, the rest by the
# failure policy.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Digest::SHA;
use Time::HiRes qw(sleep);

my $t = Coord->new;
my $redis = $t->redis;
my $fake = $t->fake_redis(upstream => $redis->{port});
my $admin = $redis->connect(die => 1);
my $origin = $t->origin(default => sub {
    return { body => 'x', headers => [ 'X-Agent' => $_[0]{args}{agent} // 'a0' ] };
});

my $conf = <<'EOF';
    coord_store main {
        server redis://127.0.0.1:%%FAKE_PORT%%;
        timeout 2s; connect_timeout 5s;
        breaker failures=1000 cooldown=100ms;
    }
    coord_session_zone $arg_k zone=one:1m;
    coord_session_zone $arg_k zone=brief:1m ttl=6s;
    coord_session_zone $arg_k zone=local:1m;
    coord_session_zone $arg_k zone=learn:1m;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Status $coord_session_status always;
        add_header X-Value $coord_session_value always;

        location /open {
            coord_session zone=one bind=$arg_v user=$http_x_user;
            empty_gif;
        }
        location /closed {
            coord_session zone=one bind=$arg_v on_failure=closed;
            empty_gif;
        }
        location /brief { coord_session zone=brief bind=$arg_v; empty_gif; }
        location /local {
            coord_session zone=local bind=$arg_v on_failure=local;
            empty_gif;
        }
        location /learn {
            coord_session zone=learn learn=$upstream_http_x_agent
                          on_failure=local;
            proxy_pass http://%%ORIGIN%%;
        }
    }
EOF

my ($a, $b) = map { $t->node(name => $_, workers => 2, http => $conf)->start }
              'a', 'b';

# what the nodes see while Redis is there

is(told($a, '/open?k=k1&v=1'), '200 NEW 1', 'new');
is(told($a, '/open?k=k2&v=1', 'ann'), '200 NEW 1', 'of a user');
is(told($a, '/open?k=k3&v=1', 'ann'), '200 NEW 1', 'of a user, to be revoked');
is(told($b, '/open?k=k4&v=1'), '200 NEW 1', 'on the other node');
$admin->command('ZREM', 'coord:us:one:{~' . hex_of('ann') . '}', hex_of('k3'));
is(told($a, '/open?k=k3&v=1', 'ann'), '403 REVOKED', 'revoked');
is(told($a, '/local?k=k1&v=1'), '200 NEW 1', 'local: new');
is(told($a, '/brief?k=k1&v=1'), '200 NEW 1', 'brief: new');


# down

$fake->refuse;
$fake->drop_all;

is(told($a, '/brief?k=k1&v=1'), '200 BOUND 1', 'brief: known');
is(told($a, '/open?k=k1&v=1'), '200 BOUND 1', 'down: known');
is(told($a, '/open?k=k1'), '403 MISMATCH', 'down: no value');
is(told($a, '/open?k=k1&v=2'), '403 MISMATCH', 'down: mismatch');
is(told($a, '/open?k=k2&v=1', 'ann'), '200 BOUND 1', 'down: of a user');
is(told($a, '/open?k=k3&v=1', 'ann'), '403 REVOKED', 'down: revoked stays');
is(told($b, '/open?k=k1&v=9'), '200 BYPASSED', 'down: not known to this node');
is(told($a, '/open?k=k4&v=9'), '200 BYPASSED', 'down: nor to this one');

is(told($a, '/closed?k=k1&v=1'), '503 UNAVAILABLE', 'closed');
my $r = $a->get('/closed?k=k1&v=1');
like($r->body, qr/"code":"store-unavailable"/, 'closed: problem');
ok($r->header('Retry-After'), 'closed: Retry-After');

is(told($a, '/local?k=k1&v=1'), '200 BOUND 1', 'local: known');
is(told($a, '/local?k=k5&v=5'), '200 NEW 5', 'local: new');
is(told($a, '/local?k=k5&v=6'), '403 MISMATCH', 'local: bound');
is(told($b, '/local?k=k5&v=6'), '200 NEW 6', 'local: each node its own');
is(told($a, '/learn?k=k5&agent=a1'), '200 NEW a1', 'local: learned');
is(told($a, '/learn?k=k5&agent=a2'), '200 BOUND a1', 'local: is learned');

ok($t->wait_for(sub { told($a, '/brief?k=k1&v=1') eq '200 BYPASSED' }, 20),
   'brief: for up to its ttl');

my $closed = qr/session unavailable, on_failure=closed, by zone "one", /;
ok($a->wait_log(qr/$closed.*reason: \w+, \d+ requests/, 10),
   'closed: logged with the policy, the reason and a number');


# and there again

$fake->accept;
ok($t->wait_for(sub { told($a, '/open?k=k4&v=1') eq '200 BOUND 1' }, 20),
   'up: the truth of Redis');
ok($t->wait_for(sub { told($b, '/open?k=k1&v=1') eq '200 BOUND 1' }, 20),
   'up: on both');
is(told($a, '/open?k=k3&v=1', 'ann'), '403 REVOKED', 'up: revoked');
ok($t->wait_for(sub { told($a, '/local?k=k5&v=7') eq '200 NEW 7' }, 20),
   'up: the local one is forgotten');


# no answer in time: as down, and a late answer harms nobody

$fake->fault(action => 'delay', delay => 4, cmd => 'EXEC', times => 1);
is(told($a, '/open?k=k1&v=1'), '200 BOUND 1', 'slow: known');
sleep 4.2;
ok($t->wait_for(sub { told($a, '/open?k=k4&v=1') eq '200 BOUND 1' }, 20),
   'slow: over');

# clients that leave while Redis is slow

$fake->fault(action => 'delay', delay => 0.2, cmd => 'EXEC', times => 20);

for (1 .. 10) {
    my $c = $a->connect;
    $c->send("GET /open?k=left$_&v=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    $c->reset;
}

sleep 1;
$fake->clear;
ok($t->wait_for(sub { told($a, '/open?k=k1&v=1') eq '200 BOUND 1' }, 20),
   'after clients that left');


$_->allow(qr/coord store/) for $a, $b;

done_testing();


sub told {
    my ($node, $path, $user) = @_;

    my $r = $node->get($path,
                       headers => { defined $user ? ('X-User' => $user) : () });

    return join ' ', $r->status, grep { defined && length }
        map { $r->header($_) } 'X-Status', 'X-Value';
}


sub hex_of { substr Digest::SHA::sha256_hex($_[0]), 0, 32 }
