#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_cache: a request that changes a page is answered when no node uses that
# page any more, also none that has it in memory.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Time::HiRes qw(time);

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect(die => 1);
my $watch = $redis->watch;
my $fake = $t->fake_redis(upstream => $redis->{port});
my $n = 0;

my $origin = $t->origin(default => sub {
    my ($req) = @_;
    my %arg = %{$req->{args}};

    return { headers => [ 'Cache-Control' => 'max-age=600', 'X-N' => ++$n,
                          'Content-Type' => 'text/plain',
                          $arg{tag} ? ('Cache-Groups' => $arg{tag}) : (),
                          $arg{gone} ? ('Cache-Group-Invalidation'
                                        => $arg{gone}) : (),
                          $arg{id} ? ('X-Id' => $arg{id}) : () ],
             status => $arg{status} || 200, hold => $arg{slow},
             body => $req->{method} . ' ' . $n . ' '
                     . ($arg{ssi} ? '[<!--#include virtual="/sorry" -->]' : '')
                     . 'x' x ($arg{big} || 0) };
});

my $locations = <<'EOT';
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% http2;
        add_header X-Cache $coord_cache_status always;
        add_header X-Pid $pid always;
        keepalive_requests 100000;
        client_body_in_single_buffer on;

        location / { coord_cache $arg_k zone=pages;
                     proxy_pass http://%%ORIGIN%%; }
        location /once/ { coord_cache $arg_k zone=pages;
                          coord_idempotency on;
                          coord_idempotency_scope off;
                          proxy_pass http://%%ORIGIN%%; }
        location /login { coord_cache $arg_k zone=pages;
                          coord_session zone=ids bind=fixed
                                        create=$upstream_http_x_id;
                          proxy_pass http://%%ORIGIN%%; }
        location /page { coord_cache $arg_k zone=pages;
                         proxy_intercept_errors on;
                         error_page 500 =200 /sorry;
                         proxy_pass http://%%ORIGIN%%; }
        location /sorry { return 200 sorry; }
        location /said { coord_cache $arg_k zone=pages;
                         if ($request_method = POST) { return 200 said; }
                         proxy_pass http://%%ORIGIN%%; }
        location /moved { coord_cache moved$arg_k zone=pages;
                          rewrite ^ /to last; }
        location /to { coord_cache $arg_k zone=pages;
                       proxy_pass http://%%ORIGIN%%; }
        location /guarded { coord_cache $arg_k zone=pages;
                            if ($arg_ssl) { return 308 https://x$uri; }
                            deny all;
                            proxy_pass http://%%ORIGIN%%; }
        location /parts { coord_cache $arg_k zone=pages; ssi on;
                          ssi_types text/plain;
                          proxy_pass http://%%ORIGIN%%; }
        location /mem { coord_cache $arg_k zone=mem;
                        proxy_pass http://%%ORIGIN%%; }
        location /api/ { coord_api write; }
        location /status { coord_status; }
EOT

my $http = <<'EOT';
    coord_store main { server %%STORE%%; timeout %%TIMEOUT%%; }
    coord_cache_zone zone=pages:4m;
    coord_cache_zone zone=mem:4m store=local;
    coord_session_zone $http_x_id zone=ids:1m ttl=1h;
EOT

sub node {
    my ($name, $store, $timeout) = @_;

    return $t->node(name => $name, workers => 2,
                    http => "$http    server {\n$locations    }\n",
                    vars => { STORE => $store, TIMEOUT => $timeout })->start;
}

my $a = node('a', '%%FAKE%%', '30s');
my $b = node('b', '%%REDIS%%', '30s');
my $d = node('d', '%%REDIS%%', '30s');

$_->allow(qr/a client request body is buffered/) for $a, $b;

# all workers of the node answer from memory

sub near {
    my ($node, $uri) = @_;

    ok($t->wait_for(sub {
        $watch->seen;
        $node->get($uri) for 1 .. 12;
        return $watch->calls('get') == 0;
    }, 20), "$uri is in memory of $node->{name}");
}

sub waits {
    my ($node, $what, $uri, $times) = @_;

    my $old = $node->get($uri)->body;
    my $c = $a->connect;
    my $since = $fake->fired('hold');

    $fake->fault(action => 'hold', cmd => 'UNLINK');
    $c->send("POST $what HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx");
    ok($t->wait_for(sub { $fake->fired('hold') > $since }, 10),
       "$what: it is purged");
    ok(!$c->read(0.3), 'and the client is not answered before');
    $fake->release;

    my $res = $c->response('POST', 20);
    is($res->status, 200, 'but then');

    my @all = map { $node->get($uri) } 1 .. 6;
    is(scalar(grep { $_->body eq $old } @all), 0, 'when the old page is gone');

    return $res;
}


# --- the answer to the purge is waited for ---

near($b, '/?k=1');
waits($b, '/?k=1', '/?k=1');

near($b, '/?k=2&tag=%22g%22');
waits($b, '/?k=other&gone=%22g%22', '/?k=2&tag=%22g%22');

{
    my $res = waits($b, '/?k=1&big=200000', '/?k=1');
    is(length($res->body =~ s/^POST \d+ //r), 200_000, 'a large body is whole');
}


# --- many times, at once ---

for my $from ($b, $d) {
    my $to = $from == $b ? $d : $b;
    my ($post, @get) = ($from->connect, map { $to->connect } 1 .. 4);
    my ($old, $near) = (0, 0);

    for my $i (1 .. 150) {
        my $page;
        my $uri = "/?k=many-$from->{name}-$i";

        # as a rule it is nearby by then

        for (1 .. 3) {
            $page = $_->request(path => $uri)->body for @get;
        }

        $watch->seen;
        $get[$i % 4]->request(path => $uri);
        $near++ if $watch->calls('get') == 0;

        $post->request(path => $uri, method => 'POST', body => 'x');
        $old += $get[($i + $_) % 4]->request(path => $uri)->body eq $page
            for 0 .. 3;
    }

    is($old, 0, "no old page of $to->{name} in 600");
    cmp_ok($near, '>', 75, "$near were in memory");
}


# --- a worker that stands still: it is the one that is told by the server ---

my $admin = $t->node(name => 'admin', http => <<'EOT')->start;
    coord_store main { server %%REDIS%%; timeout 20s; connect_timeout 20s; }
    coord_cache_zone zone=pages:4m;
    server { listen 127.0.0.1:%%PORT%%; location /api/ { coord_api write; } }
EOT

for my $how ('POST', 'DELETE key', 'DELETE tag', 'DELETE tag by others') {
    my $k = "still-$how" =~ tr/ /-/r;
    my ($one, $other) = $b->workers;
    my $uri = "/?k=$k&tag=$k";

    # only one has read it

    my %by;
    $t->wait_for(sub {
        my $c = $b->connect;
        my $res = $c->request(path => '/sorry');
        push @{$by{$res->header('x-pid')}}, $c;
        return @{$by{$one} || []} && @{$by{$other} || []};
    }, 10);
    my ($mine, $its) = ($by{$one}[0], $by{$other}[0]);

    ok($t->wait_for(sub {
        $watch->seen;
        $mine->request(path => $uri);
        return $watch->calls('get') == 0;
    }, 10), "$how: one worker has read it");
    $watch->seen;
    my $page = $its->request(path => $uri)->body;
    is($watch->calls('get'), 0, 'and the other one has it as well');

    $b->hold_worker($one);

    is($how eq 'POST' ? $a->post("/?k=$k", 'x')->status
       : $how =~ 'DELETE tag'
       ? ($how =~ /others/ ? $admin : $a)->request('DELETE', "/api/cache/pages?tag=$k")->status
       : $a->request('DELETE', "/api/cache/pages?key=$k")->status,
       200, 'it is purged while that one stands still');
    isnt($its->request(path => $uri)->body, $page, 'the other one knows');
    kill 'CONT', $one;
    isnt($mine->request(path => $uri)->body, $page, 'and it does, too');
}


# --- two at once: the time of the later one stands ---

{
    my $since = $fake->fired('hold');

    $fake->fault(action => 'hold', cmd => 'UNLINK');

    my $first = $a->connect;
    $first->send("DELETE /api/cache/pages?key=both HTTP/1.1\r\n"
                 . "Host: localhost\r\n\r\n");
    ok($t->wait_for(sub { $fake->fired('hold') > $since }, 10), 'a purge');

    my $asks = $d->connect;
    $asks->send("GET /slow?k=both&slow=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    ok($t->wait_for(sub { $origin->count('/slow') }, 10), 'a page is asked for');

    is($b->request('DELETE', '/api/cache/pages?key=both')->status, 200,
       'another purge');
    $origin->release('/slow');
    is($asks->response('GET', 10)->header('x-cache'), 'MISS', 'the page comes');
    ok($t->wait_for(sub { $r->command(EXISTS => 'coord:ca:pages:{both}:r') },
                    10), 'and is stored');
    is($d->get('/?k=both&only=1')->header('x-cache'), 'MISS',
       'it is older than that one');
    $r->command(DEL => 'coord:ca:pages:{both}:r');

    # the same once more, and the first one ends last

    $asks->send("GET /slow?k=both&slow=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    ok($t->wait_for(sub { $origin->count('/slow') == 2 }, 10), 'again');
    is($b->request('DELETE', '/api/cache/pages?key=both')->status, 200,
       'and another purge');
    $fake->release;
    is($first->response('DELETE', 10)->status, 200, 'the first one ends');
    $origin->release('/slow');
    is($asks->response('GET', 10)->header('x-cache'), 'MISS', 'the page comes');
    ok($t->wait_for(sub { $r->command(EXISTS => 'coord:ca:pages:{both}:r') },
                    10), 'and is stored');
    is($d->get('/?k=both')->header('x-cache'), 'MISS',
       'the first one does not bring it back');
}


# --- with others that look at the response ---

{
    my $first = waits($b, '/once/1?k=1', '/?k=1');
    my @key = (headers => { 'Idempotency-Key' => 'k1' });

    near($b, '/?k=1');
    $first = $a->post('/once/2?k=1', 'x', @key);
    my $res;
    ok($t->wait_for(sub {
        $res = $a->post('/once/2?k=1', 'x', @key);
        return ($res->header('Idempotency-Replayed') // '') eq 'true';
    }, 10), 'idempotency: replayed');
    is($res->body, $first->body, 'idempotency: the same');

    # its client leaves while the answer waits

    my $c = $a->connect;
    my $since = $fake->fired('hold');
    $fake->fault(action => 'hold', cmd => 'UNLINK');
    $c->send("POST /once/3?k=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
             . "Idempotency-Key: k3\r\n\r\nx");
    ok($t->wait_for(sub { $fake->fired('hold') > $since }, 10), 'it waits');
    $c->reset;
    $fake->release;
    ok($t->wait_for(sub {
        $res = $a->post('/once/3?k=1', 'x', headers =>
                        { 'Idempotency-Key' => 'k3' });
        return $res->status == 200;
    }, 10), 'its client left');
    is($res->header('Idempotency-Replayed'), 'true', 'its result is kept');
    is($origin->count('/once/3'), 1, 'it has run once');
}

{
    # without a key, too: what it has changed is purged

    near($b, '/?k=left');
    my $old = $b->get('/?k=left')->body;
    my @pid = $a->workers;
    my $c = $a->connect;
    my $since = $fake->fired('hold');
    $fake->fault(action => 'hold', cmd => 'UNLINK');
    $c->send("POST /?k=left HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx");
    ok($t->wait_for(sub { $fake->fired('hold') > $since }, 10), 'it waits');
    $c->reset;
    ok($t->wait_for(sub { $b->get('/?k=left')->body ne $old }, 10),
       'its client left: purged');
    ok($a->wait_log(qr/k=left.*\n.*POST .*k=left|client .*closed.*k=left/, 10),
       'which is known');
    $fake->release;
    is($a->post('/?k=left', 'x')->status, 200, 'all go on');
    is("@{[ $a->workers ]}", "@pid", 'all live');
}

{
    my $old = $b->get('/?k=1')->body;
    is($a->post('/page?k=1&status=500', 'x')->body, 'sorry', 'an error page');
    is($b->get('/?k=1')->body, $old, 'purges nothing');
    is($a->request('HEAD', '/?k=1')->status, 200, 'HEAD');
    is($a->request('DELETE', '/?k=1&status=204')->status, 204, 'no content');
    isnt($b->get('/?k=1')->body, $old, 'DELETE');
}

# what asks nobody, and is not asked whether it may, changes nothing

{
    my $old = $b->get('/?k=1')->body;
    is($a->post('/said?k=1', 'x')->body, 'said', 'return');
    is($a->post('/guarded?k=1&ssl=1', 'x')->status, 308, 'a redirect');
    is($a->post('/guarded?k=1', 'x')->status, 403, 'access denied');
    is($b->get('/?k=1')->body, $old, 'purges nothing');
    is($a->post('/moved?k=1', 'x')->status, 200, 'rewrite .. last');
    isnt($b->get('/?k=1')->body, $old, 'purges by the key of where it led');
}

like(waits($b, '/parts?k=1&ssi=1', '/?k=1')->body,
     qr/^POST \d+ \[sorry\] ?/, 'with a subrequest in it');

SKIP: {
    skip 'no curl', 5 if !grep { -x "$_/curl" } split /:/, $ENV{PATH};

    near($b, '/?k=h2');
    my $old = $b->get('/?k=h2')->body;
    my $since = $fake->fired('delay');
    $fake->fault(action => 'delay', delay => 0.5, cmd => 'UNLINK');
    my $res = $a->h2('http://127.0.0.1:' . $a->port(2) . '/?k=h2&big=100000',
                     '-d', 'x');
    cmp_ok($fake->fired('delay'), '>', $since, 'HTTP/2');
    is($res->status, 200, 'HTTP/2: answered');
    is(length($res->body =~ s/^POST \d+ //r), 100_000, 'HTTP/2: whole');
    isnt($b->get('/?k=h2')->body, $old, 'HTTP/2: behind the purge');
}

{
    # a reload while it waits

    my $since = $fake->fired('hold');
    $fake->fault(action => 'hold', cmd => 'UNLINK');
    my $c = $a->connect;
    $c->send("POST /?k=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx");
    ok($t->wait_for(sub { $fake->fired('hold') > $since }, 10), 'it waits');
    my @old = $a->reload;
    $fake->release;
    is($c->response('POST', 20)->status, 200, 'a reload');
    ok($a->wait_gone(20, @old), 'the old workers end');
}

is($a->get('/mem?k=1')->header('x-cache'), 'MISS', 'memory');
ok($t->wait_for(sub { $a->get('/mem?k=1')->header('x-cache') eq 'HIT' }, 5),
   'is kept');
is($a->post('/mem?k=1', 'x')->status, 200, 'is changed');
is($a->get('/mem?k=1')->header('x-cache'), 'MISS', 'is purged');


# --- no answer ---

{
    my $c = node('c', '%%REDIS%%', '1s');
    $c->allow(qr/coord store|not known to be purged|coord redis|past the cache/);

    is($c->post('/login?k=1&id=a', 'x')->status, 200, 'a session and a purge');
    $redis->freeze;

    my ($since, $began) = ($t->ran, time);
    is($c->post('/login?k=1&id=b', 'x')->status, 200, 'Redis stands still');
    my $took = $t->ran - $since;
    cmp_ok(time - $began, '>=', 0.9, 'it is waited for');
    cmp_ok($took, '<', 1.8, "but once, for timeout: $took");
    ok($c->wait_log(qr/not known to be purged from the cache zone "pages"/, 5),
       'and that is told');

    # until the breaker of each worker is open

    ok($t->wait_for(sub {
        my $quick = 0;
        for (1 .. 8) {
            my $since = $t->ran;
            my $res = $c->post('/?k=1', 'x');
            $quick++ if $res->status == 200 && $t->ran - $since < 0.3;
        }
        return $quick == 8;
    }, 60), 'nobody waits where the breaker is open');

    kill 'CONT', $redis->{pid};
}

done_testing();
