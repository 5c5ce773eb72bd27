#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# cut of coord_session: what is under way ends with its session, whoever ends
# it and wherever: streams, upgraded connections, downloads, requests that are
# not answered yet, one stream of an HTTP/2 connection.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP2;
use Digest::SHA;
use Time::HiRes qw(time);

my $t = Coord->new;
my $redis = $t->redis;
my $admin = $redis->connect(die => 1);

# streams go on for two minutes, and tell so ten times a second

my %stream = (parts => [ map { [ $_ && 0.1, "data: $_\n\n" ] } 0 .. 1200 ],
              until_close => 1);

my $origin = $t->origin(routes => {
    '/socket' => { %stream, status => 101, headers => [ Upgrade => 'echo' ] },
    '/late' => { delay => 60, body => 'late' },
    '/run' => sub { return { delay => 2, body => "run $_[0]{n}" } },
    '/login' => { headers => [ 'X-User' => 'ann' ] },
    '/plain' => { body => 'plain' },
    '/app/plain' => { body => 'plain' },
}, default => sub {
    return { %stream, headers => [ 'Content-Type' => 'text/event-stream' ] }
        if $_[0]{path} !~ /stored/;

    return { parts => [ [ 0, 'begin' ], [ 2, 'end' ] ],
             headers => [ 'Cache-Control' => 'max-age=60' ] };
});

my $conf = <<'EOF';
    %%STORE%%
    coord_session_zone $arg_k$http_x_k zone=z:1m ttl=1h;
    coord_session_zone $arg_k zone=brief:1m ttl=1h absolute=2s;
    coord_session_zone $coord_session_id zone=app:1m ttl=1h;
    proxy_cache_path %%NODEDIR%%/cache keys_zone=c:1m;
    log_format status '$uri $coord_session_status';
    access_log %%NODEDIR%%/status.log status;

    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% http2;
        proxy_http_version 1.1;
        proxy_buffering off;

        location / {
            coord_session zone=z user=$arg_u cut;
            proxy_pass http://%%ORIGIN%%;
        }
        location /few {
            coord_session zone=z user=$arg_u max_per_user=1 cut;
            proxy_pass http://%%ORIGIN%%;
        }
        location /brief {
            coord_session zone=brief cut;
            proxy_pass http://%%ORIGIN%%;
        }
        location /kept {
            coord_session zone=z user=$arg_u;
            proxy_pass http://%%ORIGIN%%;
        }
        location /dry {
            coord_session zone=z user=$arg_u cut;
            coord_session_dry_run on;
            proxy_pass http://%%ORIGIN%%;
        }
        location /ignore {
            coord_session zone=z user=$arg_u cut;
            proxy_ignore_client_abort on;
            proxy_pass http://%%ORIGIN%%;
        }
        location /socket {
            coord_session zone=z user=$arg_u cut;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_pass http://%%ORIGIN%%;
        }
        location /file {
            coord_session zone=z user=$arg_u cut;
            alias %%NODEDIR%%/big;
        }
        location /stored {
            coord_session zone=z user=$arg_u cut;
            proxy_buffering on;
            proxy_cache c;
            proxy_cache_key $uri;
            add_header X-Cache $upstream_cache_status;
            proxy_pass http://%%ORIGIN%%;
        }
        location /run {
            coord_session zone=z user=$http_x_u cut;
            coord_idempotency on;
            coord_idempotency_scope off;
            proxy_pass http://%%ORIGIN%%;
        }
        location /app {
            coord_session_cookie sid;
            coord_session zone=app cut;
            proxy_pass http://%%ORIGIN%%;
        }
        location /login {
            coord_session_cookie sid rotate=$upstream_http_x_user;
            coord_session zone=app user=$upstream_http_x_user cut;
            proxy_pass http://%%ORIGIN%%;
        }
        location /api/ { coord_api write; }
        location /status { coord_status; }
    }
EOF

my %store = (redis => 'coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }',
             memory => '');
my ($here, $there);

for my $store ('redis', 'memory') {
    my @n = map { $t->node(name => "$store-$_", workers => 2, http => $conf,
                           vars => { STORE => $store{$store} }) }
            $store eq 'redis' ? (1, 2) : 1;

    for (@n) {
        Coord::Util::spew($_->file('big'), 'x' x 50_000_000);
        $_->start;
    }

    ($here, $there) = @n[0, -1];

    my $quiet = $store eq 'redis' ? by_hand('liz') : undef;

    subtest "$store: who ends it" => \&ends;
    subtest "$store: what is under way" => \&kinds;
    subtest "$store: HTTP/2" => \&http2;
    subtest "$store: what goes on" => \&others;
    subtest "$store: a new id" => \&moved, $store;
    subtest "$store: nobody tells" => \&lost, $quiet if $store eq 'redis';
    subtest "$store: told" => \&told;
    subtest "$store: a worker that is to exit" => \&reload;

    $_->stop for @n;
}

like($t->conf_error(http => <<'EOF'), qr/invalid parameter "cut=1", allowed are/,
    coord_session_zone $arg_k zone=z:1m;
    server { coord_session zone=z cut=1; }
EOF
     'cut has no value');

done_testing();


# a stream whose first message is there

sub opened {
    my ($n, $path, %field) = @_;

    my $c = $n->connect;
    my $fields = join '', map { "$_: $field{$_}\r\n" } sort keys %field;

    $c->send("GET $path HTTP/1.1\r\nHost: x\r\n$fields\r\n");
    ok(goes_on($c), "$path: open");

    return $c;
}


# 1 if there comes more than what is there now

sub goes_on {
    my ($c) = @_;

    while (defined(my $bytes = $c->read(0))) {
        return 0 if $bytes eq '';
    }

    my $in = '';

    while ($in !~ /data/) {
        my $bytes = $c->read(20);
        return 0 if !defined $bytes || $bytes eq '';
        $in .= $bytes;
    }

    return 1;
}


sub revoke {
    my ($path) = @_;

    is($there->request('DELETE', "/api/$path")->status, 200,
       "$path: revoked");
}


sub ends {
    my ($c, @c);

    # one session, on the workers of both nodes

    @c = map { opened($_, '/s?k=one&u=ann') } ($here, $there) x 4;
    my $other = opened($here, '/s?k=two&u=ann');

    revoke('sessions/z/one');
    is(scalar(grep { $_->closed(20) } @c), 8, 'one: all that it had');
    ok(goes_on($other), 'one: another one goes on');
    is($here->get('/plain?k=one&u=ann')->status, 403, 'one: has ended');

    @c = ($other, map { opened($here, "/s?k=$_&u=ann") } 'three', 'four');
    $other = opened($here, '/s?k=five&u=bob');

    revoke('users/z/ann');
    is(scalar(grep { $_->closed(20) } @c), 3, 'a user: all of his');
    ok(goes_on($other), 'a user: not that of another one');

    $c = opened($here, '/few?k=six&u=eve');
    $other = opened($there, '/few?k=seven&u=eve');
    ok($c->closed(20), 'too many: the least recently active');
    ok(goes_on($other), 'too many: not the new one');

    $c = opened($here, '/brief?k=eight');
    ok($c->closed(20), 'absolute: nobody has asked');
    is($here->get('/brief?k=eight')->status, 403, 'absolute: has ended');
}


sub kinds {
    my ($r, $bytes);
    my ($late_before, $run_before) = map { $origin->count($_) } '/late',
                                    '/run';
    my %gone = map { $_ => aborted($_) } qw(/socket /ignore /late);

    my $socket = opened($here, '/socket?k=ws&u=kim', Upgrade => 'echo',
                        Connection => 'upgrade');
    my $ignore = opened($here, '/ignore?k=ig&u=kim');

    my $late = $here->connect;
    $late->send("GET /late?k=late&u=kim HTTP/1.1\r\nHost: x\r\n\r\n");

    my $file = $here->connect;
    $file->send("GET /file?k=file&u=kim HTTP/1.1\r\nHost: x\r\n\r\n");
    ok($file->read(20), 'file: has begun');

    my @key = ('Idempotency-Key' => "$$-$run_before");
    my $run = $here->connect;
    $run->send("POST /run HTTP/1.1\r\nHost: x\r\nX-K: run\r\nX-U: kim\r\n"
               . "$key[0]: $key[1]\r\nContent-Length: 1\r\n\r\nb");

    ok($t->wait_for(sub { $origin->count('/late') > $late_before
                          && $origin->count('/run') > $run_before }, 20),
       'the upstream is asked');

    revoke('users/z/kim');

    ok($socket->closed(20), 'an upgraded connection');
    ok($ignore->closed(20), 'with proxy_ignore_client_abort');
    is($late->read(20), '', 'a request that is not answered yet');
    is($run->read(20), '', 'an idempotent request');

    # whoever reads on gets what was sent before

    ok($t->wait_for(sub { $here->log =~ /request cut,.*"GET \/file/ }, 20),
       'a file: the log tells of it');

    my $length = 0;
    $length += length $bytes while $bytes = $file->read(20);
    cmp_ok($length, '<', 40_000_000, 'a file');

    for my $path (sort keys %gone) {
        ok($t->wait_for(sub { aborted($path) > $gone{$path} }, 20),
           "$path: its upstream hears of it");
    }

    ok($t->wait_for(sub {
        $r = $here->post('/run', 'b', headers => [ @key, 'X-K' => 'run2' ]);
        return $r->status != 409;
    }, 20), 'that one goes on');
    is($r->header('Idempotency-Replayed'), 'true', 'its result is kept');
    is($origin->count('/run'), $run_before + 1, 'it has run once');
}


sub http2 {
    my $h2 = Coord::HTTP2->new(port => $here->port(2));
    my $before = $origin->count('/late');
    my @id = map { $h2->request("/s?k=h2$_&u=lea$_") } 1, 2;
    my ($cut, $other) = map { $h2->stream($_) } @id;

    ok($h2->wait(sub { $cut->{body} =~ /data/ && $other->{body} =~ /data/ },
                 20), 'two streams');

    my $late = $h2->request('/late?k=h21&u=lea1');
    ok($h2->wait(sub { $origin->count('/late') > $before }, 20),
       'one that is not answered yet');

    revoke('sessions/z/h21');
    ok($h2->ended($id[0], 20), 'the stream has ended');
    is($cut->{reset}, 2, 'it was reset');
    ok($h2->ended($late, 20), 'so has that which was not answered');

    my $length = length $other->{body};
    ok($h2->wait(sub { length $other->{body} > $length }, 20),
       'the stream of another session goes on');
    is($h2->ended($h2->request('/plain?k=h22&u=lea2'), 20)->{status}, 200,
       'the connection as well');
    is($h2->ended($h2->request('/plain?k=h21&u=lea1'), 20)->{status}, 403,
       'the session has ended');

    # what goes on without its client

    my $path = '/stored/' . $origin->count;
    my $stored = $h2->request("$path?k=h23&u=lea3");
    ok($h2->wait(sub { $h2->stream($stored)->{status} }, 20),
       'a response that is being stored');
    revoke('sessions/z/h23');
    ok($h2->ended($stored, 20), 'its stream ends');
    unlike($h2->stream($stored)->{body}, qr/end/, 'and gets nothing more');

    my $r;
    ok($t->wait_for(sub {
        $r = $here->get("$path?k=h24&u=lea4");
        return $r->header('X-Cache') eq 'HIT';
    }, 20), 'it is stored');
    is($r->body, 'beginend', 'as a whole');
}


sub others {
    my $kept = opened($here, '/kept?k=k1&u=max');
    my $dry = opened($here, '/dry?k=k2&u=max');
    my $cut = opened($here, '/s?k=k3&u=max');

    revoke('users/z/max');
    ok($cut->closed(20), 'cut');
    ok($t->wait_for(sub { $here->log =~ /revoked, request cut, dry run, by/ },
                    20), 'dry run: logged');
    ok(goes_on($kept), 'without cut: goes on');
    ok(goes_on($dry), 'dry run: goes on');
}


# what is under way with an id that was replaced has a minute

sub moved {
    my ($store) = @_;

    my $id = sid($here->get('/app/plain'));
    my $c = opened($here, '/app/s', Cookie => "sid=$id");
    my $new = sid($there->post('/login', 'b',
                               headers => [ Cookie => "sid=$id" ]));

    is($here->get('/app/plain', headers => [ Cookie => "sid=$id" ])->status,
       403, 'the old id has ended');
    my $of_new = opened($here, '/app/s', Cookie => "sid=$new");
    ok(goes_on($c), 'what is under way with it goes on');

    revoke('users/app/ann');
    ok($of_new->closed(20), 'with the new one it is cut');
    ok(goes_on($c), 'with the old one not yet');

    return if $store eq 'memory';

    # as if the id had been replaced 57 seconds ago

    my $key = 'coord:ss:app:{~' . hex_of($id) . '}';
    my $now = $admin->command('TIME')->[0];

    $admin->command('SET', "$key:x", - ($now + 86400 - 57) * 1_000_000,
                    'PX', 86_400_000);
    $admin->command('PUBLISH', 'coord:wake', $key);
    ok(goes_on($c), 'when that is told not yet');
    ok($c->closed(20), 'then it is');
}


# a stream of a user whose sessions are ended by hand, which nobody tells

sub by_hand {
    my ($user) = @_;

    my $c = opened($here, "/s?k=hand$user&u=$user");

    is($admin->command('UNLINK', 'coord:us:z:{~' . hex_of($user) . '}'), 1,
       "$user: ended by hand");
    ok(goes_on($c), "$user: nobody knows");

    return $c;
}


sub lost {
    my ($quiet) = @_;

    ok($quiet->closed(60), 'it is looked at now and then');

    my $c = by_hand('pat');
    my $other = opened($here, '/s?k=hand&u=sue');

    $admin->command('CLIENT', 'KILL', 'TYPE', 'pubsub');
    ok($c->closed(20), 'who listens again looks');
    ok(goes_on($other), 'and sees what has not ended');
}


sub told {
    like($here->log, qr/\[error\].*session\ revoked,\ request\ cut,\ by\ zone
                       \ "z".*outcome:\ REVOKED/x, 'in the log');
    ok($t->wait_for(sub { Coord::Util::slurp($here->file('status.log'))
                          =~ /^\/s REVOKED$/m }, 5), 'in the variable');
    like($here->get('/status?format=prometheus')->body,
         qr/feature="session",zone="z",outcome="cut"\} [1-9]/, 'counted');
}


sub reload {
    my $c = opened($here, '/s?k=old&u=tom');

    $here->reload;

    revoke('users/z/tom');
    ok($c->closed(20), 'cut');
}


sub aborted {
    my ($path) = @_;

    return scalar $origin->entries(event => 'aborted', path => $path);
}


sub sid {
    my ($r) = @_;

    my ($id) = ($r->header('Set-Cookie') // '') =~ /sid=(\w{32})/;
    ok($id, 'an id');

    return $id;
}


sub hex_of { substr Digest::SHA::sha256_hex($_[0]), 0, 32 }
