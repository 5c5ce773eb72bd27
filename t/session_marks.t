#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# That a session has ended is told until the store knows it, whatever happens on
# the way, and a store with persistence knows it when it comes back.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Digest::SHA;
use Time::HiRes qw(sleep);

my $t = Coord->new;
my $redis = $t->redis('appendonly yes', 'appendfsync always');
my $origin = $t->origin(default => sub {
    return { body => 'x', headers => [ 'X-Id' => $_[0]{args}{id} // '',
                                       'X-User' => $_[0]{args}{user} // '',
                                       'X-Login' => $_[0]{args}{login} // '' ] };
});

my $conf = <<'EOF';
    coord_store main { server %%REDIS%%; timeout 2s; connect_timeout 5s;
                       breaker failures=1000 cooldown=100ms; }
    coord_session_zone $arg_k zone=one:1m ttl=4s absolute=1h;
    coord_session_zone $coord_session_id zone=app:1m ttl=1h;
    coord_session_zone $arg_k zone=seat:1m ttl=1h;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Status $coord_session_status always;

        location / {
            coord_session zone=one user=$arg_u max_per_user=1;
            empty_gif;
        }
        location /login {
            coord_session_cookie sid rotate=$upstream_http_x_login;
            coord_session zone=app;
            proxy_pass http://%%ORIGIN%%;
        }
        location /seat {
            coord_session zone=seat create=$upstream_http_x_id
                          user=$upstream_http_x_user
                          max_per_user=1 over=reject;
            proxy_pass http://%%ORIGIN%%;
        }
        location /api { coord_api write; }
    }
EOF

my ($a, $b) = map { $t->node(name => $_, http => $conf)->start } 'a', 'b';

$_->allow(qr/coord store/) for $a, $b;

# no mark can be set, and all else can
sub marks { $redis->connect(die => 1)->command(qw(ACL SETUSER default),
                                               $_[0] . 'set') }


# the mark of an evicted session does not come through at once

is(told($a, '/?k=k1&u=ann'), '200 NEW', 'evicted: the first');
marks('-');
is(told($a, '/?k=k2&u=ann'), '200 NEW', 'evicted: the second');
sleep 0.5;
is(marked('one', 'k1'), 0, 'evicted: cannot be told');
marks('+');
ok($t->wait_for(sub { marked('one', 'k1') }, 20), 'evicted: is told');
sleep 4.5;
is(told($b, '/?k=k1'), '403 REVOKED', 'evicted: past its idle time');


# the store is away when it is to be told

is(told($b, '/?k=k3&u=bob'), '200 NEW', 'seen: bound');
$redis->connect->command('UNLINK', 'coord:us:one:{~' . hex_of('bob') . '}');
marks('-');
is(told($a, '/?k=k3&u=bob'), '403 REVOKED', 'seen: by a node');
$redis->stop('KILL');
$redis->run;
ok($t->wait_for(sub { marked('one', 'k3') }, 20), 'seen: is told');

for my $n ($a, $b) {
    ok($t->wait_for(sub { told($n, '/?k=back') =~ /NEW|BOUND/ }, 20),
       'both have Redis again');
}


# an id that was replaced: the response waits for its end, and if that is lost it
# is told later

{
    my ($id) = $b->get('/login')->header('Set-Cookie') =~ /sid=(\w+)/;
    marks('-');
    my $r = $a->get('/login?login=1', headers => { Cookie => "sid=$id" });
    is($r->status, 200, 'replaced: answered');
    like($r->header('Set-Cookie'), qr/sid=\w+/, 'replaced: a new id');
    marks('+');
    ok($t->wait_for(sub { marked('app', $id) }, 20), 'replaced: is told');
    is($b->get('/login', headers => { Cookie => "sid=$id" })->status, 403,
       'replaced: the old one has ended');
}

# one beyond the seats

is($a->get('/seat?id=s1&user=cat')->status, 200, 'seat: taken');
marks('-');
is($a->get('/seat?id=s2&user=cat')->status, 200, 'seat: none is free');
marks('+');
ok($t->wait_for(sub { marked('seat', 's2') }, 20), 'seat: is told');
is(told($b, '/seat?k=s2'), '403 REVOKED', 'seat: on every node');


# ended, and Redis is killed

is(told($b, '/?k=k5&u=eve'), '200 NEW', 'killed: one that stays');
is(told($a, '/?k=k6&u=fay'), '200 NEW', 'killed: one that ends');
is($a->request('DELETE', '/api/users/one/fay')->status, 200, 'killed: ended');
$redis->stop('KILL');
$redis->run;
ok($t->wait_for(sub { told($b, '/?k=k6&u=fay') eq '403 REVOKED' }, 20),
   'killed: stays ended, on a node that had not seen it');
is(told($b, '/?k=k1'), '403 REVOKED', 'killed: as the first one');
like(told($b, '/?k=k5&u=eve'), qr/^200 (BOUND|NEW)$/, 'killed: others go on');

done_testing();


sub told {
    my ($node, $path) = @_;

    my $r = $node->get($path);

    return join ' ', $r->status, $r->header('X-Status') // '';
}


sub marked {
    my ($zone, $key) = @_;

    return $redis->connect->command('EXISTS', "coord:ss:$zone:{~"
                                    . hex_of($key) . '}:x');
}


sub hex_of { substr Digest::SHA::sha256_hex($_[0]), 0, 32 }
