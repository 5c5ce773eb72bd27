#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# HTTP/3: a request is a stream of QUIC, and its client leaves without a socket
# that closes.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP3;
use Coord::TLS;
use JSON::PP qw(decode_json);

Test::More::plan(skip_all => Coord::HTTP3->missing) if Coord::HTTP3->missing;

my $t = Coord->new;
my $redis = $t->redis;
my $admin = $redis->connect(die => 1);
my $tls = Coord::TLS->new($t->dir);

$tls->cert('site', san => 'IP:127.0.0.1');
$t->set(CERT => $tls->file('site.pem'), KEY => $tls->file('site.key'));

my %stream = (parts => [ map { [ $_ && 0.1, "data: $_\n\n" ] } 0 .. 600 ],
              headers => [ 'Content-Type' => 'text/event-stream' ],
              until_close => 1);

my $origin = $t->origin(routes => {
    '/stream' => { %stream }, '/conn' => { %stream },
    '/late' => { delay => 60, body => 'late' },
    '/held' => { delay => 60, body => 'held' },
    '/pay' => sub { return { status => 201, body => "paid $_[0]{n}" } },
    '/pay/slow' => sub { return { delay => 2, body => "slow $_[0]{n}" } },
    '/pay/parts' => { parts => [ [ 0, 'begin ' ], [ 2, 'x' x 200_000 ],
                                 [ 1, ' end' ] ] },
    '/page' => { headers => [ 'Cache-Control' => 'max-age=60' ],
                 body => 'page' },
});

my $conf = <<'EOF';
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_limit_req_zone $arg_k zone=req:1m rate=1r/h;
    coord_limit_req_zone $arg_k zone=soon:1m rate=2r/s;
    coord_limit_req_zone $request_body zone=body:1m rate=1r/h;
    coord_limit_conn_zone $arg_k zone=conn:1m lease=9s;
    coord_lock_zone $arg_k zone=lock:1m lease=9s;
    coord_session_zone $coord_session_id zone=app:1m;
    coord_session_zone $arg_k zone=cut:1m;
    coord_cache_zone zone=pages:1m;
    coord_lookup $rate plan:$arg_k;
    coord_limit_req_zone $arg_k zone=plan:1m rate=$rate;

    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% quic;
        ssl_certificate %%CERT%%;
        ssl_certificate_key %%KEY%%;
        keepalive_timeout 5s;            # after which a lost connection ends
        proxy_buffering off;
        client_body_buffer_size 8k;
        coord_idempotency_scope off;

        add_header X-Status "$coord_limit_req_status$coord_limit_conn_status"
                   always;
        add_header X-Session $coord_session_status always;
        add_header X-Cache $coord_cache_status;

        location /req { coord_limit_req zone=req burst=1 nodelay; empty_gif; }
        location /soon { coord_limit_req zone=soon burst=9; empty_gif; }
        location /body { coord_limit_req zone=body after_body;
                         proxy_pass http://%%ORIGIN%%/pay; }
        location /plan { coord_limit_req zone=plan; empty_gif; }
        location /conn { coord_limit_conn conn 1;
                         proxy_pass http://%%ORIGIN%%; }
        location /wait { coord_limit_conn conn 1 wait=20s; empty_gif; }
        location /lock { coord_lock zone=lock;
                         proxy_pass http://%%ORIGIN%%/held; }
        location /pay { coord_idempotency on;
                        proxy_pass http://%%ORIGIN%%; }
        location /app { coord_session_cookie sid;
                        coord_session zone=app bind=$arg_v; empty_gif; }
        location /stream { coord_session zone=cut cut;
                           proxy_pass http://%%ORIGIN%%; }
        location /late { coord_session zone=cut cut;
                         proxy_pass http://%%ORIGIN%%; }
        location /page { coord_cache $uri zone=pages;
                         proxy_pass http://%%ORIGIN%%; }
        location /hear { coord_subscribe news; }
        location /api/ { coord_api write; }
        location /status { coord_status; }
    }
EOF

my @n = map { $t->node(name => "n$_", http => $conf)->start } 1, 2;
my @c = map { Coord::HTTP3->new($_, 2) } @n;

sub count { return $admin->command('ZCARD', "coord:$_[0]") }

sub soon {
    my ($code, $want, $name) = @_;
    my $got;

    $t->wait_for(sub { ($got = $code->()) eq $want }, 15);
    is($got, $want, $name);
}

sub post {
    my ($c, $path, $key, $body) = @_;

    my $file = $t->file('body');
    Coord::Util::spew($file, $body);

    return $c->get($path, '-H', "Idempotency-Key: \"$key\"",
                   '-H', 'Content-Type: text/plain',
                   '--data-binary', "\@$file");
}


# rates

is(join(' ', map { $c[$_ % 2]->get('/req?k=a')->status } 1 .. 4),
   '200 200 429 429', 'a limit of both nodes');

my $r = $c[0]->get('/req?k=a');
like($r->header('Retry-After'), qr/^\d+$/, 'Retry-After');
like($r->header('RateLimit'), qr/^"req";r=0;t=\d+$/, 'RateLimit');
is($r->header('Content-Type'), 'application/problem+json', 'a problem');
is(decode_json($r->body)->{status}, 429, 'says the status');
is($n[0]->get('/req?k=a')->status, 429, 'one limit with HTTP/1.1');

is(join(' ', map { $_->end->status } map { $c[$_ % 2]->begin('/soon?k=a') }
             1 .. 4), '200 200 200 200', 'delayed');

$admin->command('SET', 'plan:x', '2r/h');
is(join(' ', map { $c[$_ % 2]->get('/plan?k=x')->status } 1, 2), '200 429',
   'a rate that is looked up');

# what a body says: in memory, in a file

for my $size (10, 100_000) {
    my $body = 'x' x $size;

    is(join(' ', map { post($c[0], '/body', 'k', $_)->status }
                 $body, $body, "y$body"), '201 429 201',
       "after the body, $size");
}


# requests at a time: the place of who leaves is free, waiting or not

my $job = $c[0]->begin('/conn?k=a');

soon(sub { $job->text =~ /data: 3/ ? 1 : 0 }, 1, 'a stream');
is($c[1]->get('/conn?k=a')->status, 429, 'its place is taken');

my $leaves = $c[1]->begin('/wait?k=a', '--max-time', 2);
soon(sub { count('cc:conn:{a}:w') }, 1, 'one waits');
$leaves->end;
soon(sub { count('cc:conn:{a}:w') }, 0, 'and leaves the line');

my $waits = $c[1]->begin('/wait?k=a');
soon(sub { count('cc:conn:{a}:w') }, 1, 'another one waits');

is($c[0]->begin('/conn?k=b', '--max-time', 1)->end->status, 200,
   'a client that leaves a stream');
soon(sub { count('cc:conn:{b}') }, 0, 'its place is free');

kill 'KILL', $n[0]->workers;
$job->end;
is($waits->end->status, 200, 'a killed worker: who waited goes on');
soon(sub { count('cc:conn:{a}') }, 0, 'and nothing is left');
$n[0]->allow(qr/exited on signal 9/);

is($c[1]->begin('/lock?k=a', '--max-time', 1)->end->status, 0, 'a lock');
soon(sub { count('lk:lock:{a}') }, 0, 'which is free when its client left');


# executions: once, whoever stays

for my $size (10, 300_000) {
    my $body = 'x' x $size;

    my %got = map { $_->status . ' ' . $_->body => 1 }
              map { post($c[$_ % 2], '/pay', "p$size", $body) } 1 .. 3;

    like(join(', ', keys %got), qr/^201 paid \d+$/,
         "one execution, body of $size");
    is(post($c[0], '/pay', "p$size", "y$body")->status, 422,
       "another body, $size");
}

is($c[0]->begin('/pay/slow', '-d', 'x', '-H', 'Idempotency-Key: s',
                '--max-time', 1)->end->status, 0, 'the client leaves');
soon(sub { $c[1]->get('/pay/slow', '-d', 'x', '-H', 'Idempotency-Key: s')
               ->header('Idempotency-Replayed') // '' }, 'true',
     'its answer is kept');
is($origin->count('/pay/slow'), 1, 'one execution');

# a response that has begun: its connection ends, or its stream alone

for my $what ('connection', 'stream') {
    my @curl = ('-d', 'x', '-H', "Idempotency-Key: $what");
    my @first = $what eq 'stream' ? ('-Z', '--max-time', 9,
                                     $c[0]->url('/conn?k=p'),
                                     '--next', '-sikN', '--http3-only') : ();

    my $first = $c[0]->begin('/pay/parts', @first, @curl, '--max-time', 1);
    soon(sub { $first->text =~ /begin / ? 1 : 0 }, 1, "$what: begins");

    my $r;
    $t->wait_for(sub {
        $r = $c[1]->get('/pay/parts', @curl);
        return $r->status != 409;
    }, 15);
    is($r->header('Idempotency-Replayed'), 'true',
       "its $what ends: a replay");
    ok($r->body eq 'begin ' . 'x' x 200_000 . ' end',
       "its $what ends: of all of it");
    $first->end;
}

is($origin->count('/pay/parts'), 2, 'one execution each');


# sessions

$r = $c[0]->get('/app?v=1');
my ($cookie) = ($r->header('Set-Cookie') || '') =~ /^(sid=[0-9a-f]{32});/;
ok($cookie, 'a cookie');
is(join(' ', map { $c[1]->get("/app?v=$_", '-b', $cookie)
                       ->header('X-Session') } 1, 2), 'BOUND MISMATCH',
   'bound on the other node');

for my $path ('/stream', '/late') {
    my $cut = $c[0]->begin("$path?k=c$path");

    soon(sub { $origin->requests($path) }, 1, "$path: runs");
    $n[1]->request('DELETE', "/api/sessions/cut/c" . $path =~ s!/!%2F!r);
    $cut->end;
    cmp_ok($?, '!=', 0, "$path: cut");
    unlike($cut->text, qr/data: 300/, "$path: at once");
    ok($n[0]->wait_log(qr/session revoked, request cut/, 5), "$path: told");
    is($c[0]->get("$path?k=c$path")->status, 403, "$path: and ended");
}


# a cache, events

is(join(' ', map { $_->header('X-Cache') . ' ' . $_->body }
             map { $c[$_ % 2]->get('/page') } 1 .. 3),
   'MISS page HIT page HIT page', 'a page for all');

my @heard = map { $_->begin('/hear', '--max-time', 4) } @c;
soon(sub { $admin->command('PUBLISH', 'news', 'hello');
           scalar grep { $_->text =~ /^data: hello\r?$/m } @heard }, 2,
     'events');
$_->end for @heard;
soon(sub { join ' ', map { decode_json($_->get('/api/events/news')->body)
                           ->{listeners} } @n }, '0 0',
     'who left is no listener');


# a reload while a stream is open

$job = $c[0]->begin('/conn?k=r', '--max-time', 3);
soon(sub { count('cc:conn:{r}') }, 1, 'a stream before a reload');
$n[0]->reload;
is($c[0]->get('/req?k=r')->status, 200, 'the new workers serve');
$job->end;
soon(sub { count('cc:conn:{r}') }, 0, 'its place was given back');

done_testing();
