#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_api: sessions, users and idempotency keys.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

use Digest::SHA qw(sha256_hex);
use JSON::PP;

my $t = Coord->new;
my $redis = $t->redis;
my $second = $t->redis;
my $origin = $t->origin(routes => { '/pay' => { body => 'paid' } });

my $at = 'server %%REDIS%%; timeout 30s; connect_timeout 30s;';

# with both a key is asked for in memory first, and then in Redis

for my $kind ('redis', 'memory', 'both') {
    my $server = $kind eq 'redis' ? $at : '';
    my $other = $kind eq 'memory' ? '' : $at =~ s/REDIS/REDIS_2/r;

    $second->connect->command('FLUSHALL');

    my $conf = <<"EOF";
        coord_store main { $server }
        coord_store other { $other }
        coord_session_zone \$arg_s zone=ses:1m ttl=1h;

        server {
            listen 127.0.0.1:%%PORT%%;
            server_name shop;

            location = /plain {
                coord_session zone=ses bind=\$arg_b;
                add_header X-Session \$coord_session_status always;
                return 200 "ok";
            }

            location = /user {
                coord_session zone=ses bind=\$arg_b user=\$arg_u;
                add_header X-Session \$coord_session_status always;
                empty_gif;
            }

            location = /session {
                coord_session zone=ses bind=\$arg_b;
                add_header X-Session \$coord_session_status always;
                empty_gif;
            }

            location = /pay {
                coord_idempotency on;
                proxy_pass http://%%ORIGIN%%;
            }

            location = /other {
                coord_idempotency on;
                coord_idempotency_store other;
                proxy_pass http://%%ORIGIN%%/pay;
            }

            location /api/ { coord_api write; }
            location = /status { coord_status; }
        }
EOF

    my $n = $t->node(name => $kind, workers => 2, http => $conf)->start;

    my $get = sub {
        my ($path) = @_;
        my $r = $n->get($path);
        return ($r->status, decode_json($r->body));
    };

    my $drop = sub {
        my ($path) = @_;
        my $r = $n->request('DELETE', $path);
        is($r->status, 200, "$kind: DELETE $path");
        return decode_json($r->body);
    };

    my $of = sub { $n->get($_[0])->header('X-Session') // '' };


    # a session

    is($n->get('/api/sessions/ses/s1')->status, 404, "$kind: no session");
    is($of->('/session?s=s1&b=one'), 'NEW', "$kind: bound");

    my ($status, $json) = $get->('/api/sessions/ses/s1');
    is($status, 200, "$kind: a session");
    is($json->{value}, 'one', "$kind: its value");
    ok(!$json->{revoked}, "$kind: not revoked");
    cmp_ok($json->{expires_seconds}, '>', 3500, "$kind: its life");

    ok($drop->('/api/sessions/ses/s1')->{deleted}, "$kind: revoked");
    is($of->('/session?s=s1&b=one'), 'REVOKED', "$kind: indeed");
    ok(!$drop->('/api/sessions/ses/none')->{deleted}, "$kind: none");


    # a user

    is($of->("/user?s=u$_&b=x&u=alice"), 'NEW', "$kind: of alice") for 1 .. 3;
    is($of->('/user?s=v1&b=x&u=bob'), 'NEW', "$kind: of bob");

    ($status, $json) = $get->('/api/users/ses/alice');
    is($json->{count}, 3, "$kind: three sessions");
    is(scalar @{ $json->{sessions} }, 3, "$kind: listed");

    my $id = $json->{sessions}[0]{session};
    like($id, qr/^~[0-9a-f]{32}$/, "$kind: by their digests");
    ($status, $json) = $get->("/api/sessions/ses/$id");
    is($json->{value}, 'x', "$kind: a session by its digest");
    ok(!$json->{revoked}, "$kind: that goes on");

    # the digits of each key, whatever other keys the answer has to ask for

    my %digest = map { $_->[0] => substr sha256_hex($_->[1]), 0, 8 }
                 ['sessions/ses/u1', 'u1'], ['users/ses/alice', 'alice'];

    is((($get->("/api/$_"))[1])->{digest}, $digest{$_}, "$kind: digest of $_")
        for sort keys %digest;

    $json = $drop->('/api/sessions/ses/u1');
    ok($json->{deleted}, "$kind: one of them");
    is($json->{digest}, $digest{'sessions/ses/u1'}, "$kind: its digest");
    ($status, $json) = $get->('/api/users/ses/alice');
    is($json->{count}, 2, "$kind: two are left");
    is($of->('/user?s=u1&b=x&u=alice'), 'REVOKED', "$kind: revoked");

    $json = $drop->('/api/users/ses/alice');
    is($json->{ended}, 2, "$kind: all of a user");
    is($json->{digest}, $digest{'users/ses/alice'}, "$kind: the digest of it");
    like($n->log, qr/deleting from users .*key: $json->{digest}, /,
         "$kind: as in the log");
    is($of->("/user?s=u$_&b=x&u=alice"), 'REVOKED', "$kind: all") for 2, 3;
    ok((($get->('/api/sessions/ses/u2'))[1])->{revoked}, "$kind: told so");
    is($of->('/user?s=v1&b=x&u=bob'), 'BOUND', "$kind: no one else");


    # an idempotency key

    my $pay = sub {
        $n->post('/pay', 'x', headers => {
            'Idempotency-Key' => '"k/1"', 'Authorization' => 'Bearer a b',
        });
    };

    is($pay->()->header('Idempotency-Replayed'), undef, "$kind: executed");
    is($pay->()->header('Idempotency-Replayed'), 'true', "$kind: replayed");
    ok(!$drop->('/api/idempotency/k%2F1')->{deleted}, "$kind: other scope");
    ok(!$drop->('/api/idempotency/k%2F1?scope=Bearer%20a%20b&server=x')
       ->{deleted}, "$kind: other server");
    ok($drop->('/api/idempotency/k%2F1?scope=Bearer+a+b&server=%73hop')
       ->{deleted}, "$kind: deleted, asked for as forms ask");
    is($pay->()->header('Idempotency-Replayed'), undef, "$kind: executed anew");

    my ($zone) = grep { $_->{feature} eq 'idempotency' }
                      @{ decode_json($n->get('/status')->body)->{zones} };
    is_deeply([@{ $zone->{decisions} }{qw(new replayed conflict)}], [2, 1, 0],
              "$kind: decisions on idempotency keys are counted");

    # in quotes, as it was sent

    ok($drop->('/api/idempotency/%22k%2F1%22?scope=Bearer%20a%20b')->{deleted},
       "$kind: deleted in quotes");
    ok(!$drop->("/api/idempotency/$_?scope=Bearer%20a%20b")->{deleted},
       "$kind: $_ is no key")
        for '%22', '%22k', '%22k%2F1%22%3Bp', 'k%01';
    is($pay->()->header('Idempotency-Replayed'), undef, "$kind: and once more");

    is($n->get('/api/idempotency/x')->header('Allow'), 'DELETE',
       "$kind: not shown");

    # one in another store

    $drop->('/api/idempotency/k%2F1?scope=Bearer%20a%20b');
    $pay->();

    my %other = (headers => { 'Idempotency-Key' => 'k/1',
                              'Authorization' => 'Bearer a b' });

    is($n->post('/other', 'x', %other)->header('Idempotency-Replayed'), undef,
       "$kind: another store: executed");
    is($n->post('/other', 'x', %other)->header('Idempotency-Replayed'), 'true',
       "$kind: another store: replayed");
    ok($drop->('/api/idempotency/k%2F1?scope=Bearer%20a%20b')->{deleted},
       "$kind: another store: deleted");
    is($n->post('/other', 'x', %other)->header('Idempotency-Replayed'), undef,
       "$kind: another store: executed anew");
    ok($drop->('/api/idempotency/k%2F1?scope=Bearer%20a%20b')->{deleted},
       "$kind: another store: deleted alone");
    is($n->post('/other', 'x', %other)->header('Idempotency-Replayed'), undef,
       "$kind: another store: and executed once more");
    is($pay->()->header('Idempotency-Replayed'), undef,
       "$kind: another store: as is the key in the first one");

    unlike($n->get('/api/users/ses/alice')->body, qr/alice/,
           "$kind: no name in an answer");
}

done_testing();
