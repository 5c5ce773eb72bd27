#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_idempotency: a response that frees its key.  Who has all of it and asks
# again at once, on another node, runs: the key is free by then.  What the first
# node tells Redis comes there late.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Away;
use Coord::HTTP;
use Coord::HTTP2;
use Coord::Util qw(slurp spew);
use Time::HiRes qw(time);

my ($tries, $crowd) = (64, 16);

my $t = Coord->new(time_limit => 900);
my $redis = $t->redis;
my $away = Coord::Away->start(test => $t, to => $redis->{port}, out => 0.05);
my $slow = Coord::Away->start(test => $t, to => $redis->{port}, back => 0.5);

my $kib = join '', map { sprintf '%08d', $_ } 1 .. 128;

# a frame of messages, and the one with the trailers behind it

sub grpc_web {
    my ($status) = @_;

    my $trailers = "grpc-status: $status\r\n";

    return pack('CN', 0, 4) . 'data' . pack('CN', 0x80, length $trailers)
           . $trailers;
}

my %answers = (
    again => { status => 503, body => $kib },
    nothing => { status => 503, body => '' },
    chunked => { status => 503, body => $kib, chunked => 100 },
    closed => { status => 503, body => $kib, until_close => 1 },
    denied => { status => 403, body => $kib,
                headers => [ 'Content-Type' => 'text/plain' ] },
    later => { body => $kib, headers => [ 'X-Later' => 1 ] },
    web => { body => grpc_web(14),
             headers => [ 'Content-Type' => 'application/grpc-web' ] },
    weblong => { body => "\0" . pack('N', 60_000) . 'x' x 60_000 . grpc_web(14),
                 headers => [ 'Content-Type' => 'application/grpc-web' ] },
    broken => { raw => '' },
    held => { status => 503, hold => 1 },
    kept => { body => $kib },
    big => { status => 503, size => 32 * 1024 * 1024 },
);

my %routes = (default => sub {
    my ($name) = $_[0]{path} =~ m!(\w*)$!;
    return { %{$answers{$name} || {}} };
});

my $origin = $t->origin(%routes);
my $fcgi = $t->gateway(protocol => 'fastcgi', %routes);

my $http = <<'EOT';
    coord_store main { server redis://127.0.0.1:%%TO%%; timeout %%TIMEOUT%%;
                       connect_timeout 5s; }
    coord_lock_zone all zone=lock:1m;
    coord_session_zone $http_x_session zone=session:1m;

    coord_idempotency on;
    coord_idempotency_scope off;
    coord_idempotency_max_response 16k;
    coord_idempotency_no_store $upstream_http_x_later;
    coord_idempotency_log_level info;
    fastcgi_param REQUEST_METHOD $request_method;
    fastcgi_param REQUEST_URI $request_uri;
    fastcgi_param CONTENT_LENGTH $content_length;

    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% http2;
        keepalive_timeout 60s;
        send_timeout 600s;
        proxy_read_timeout 600s;

        location / { proxy_pass http://%%ORIGIN%%; }
        location /unbuffered/ { proxy_buffering off;
                                proxy_pass http://%%ORIGIN%%; }
        location /fastcgi/ { fastcgi_pass %%FASTCGI%%; }
        location /locked/ { coord_lock zone=lock;
                            proxy_pass http://%%ORIGIN%%; }
        location /session/ { coord_session zone=session
                                           create=$request_id bind=a;
                             proxy_pass http://%%ORIGIN%%; }
        location /gzip/ { gzip on; gzip_types *; gzip_min_length 0;
                          proxy_pass http://%%ORIGIN%%; }
        location /page/ { proxy_intercept_errors on; error_page 503 /sorry;
                          proxy_pass http://%%ORIGIN%%; }
        location /parts/ { add_before_body /part; add_after_body /part;
                           addition_types *; proxy_pass http://%%ORIGIN%%; }
        location /after/ { post_action /part; proxy_pass http://%%ORIGIN%%; }
        location /refused/ { proxy_pass http://127.0.0.1:1; }
        location = /sorry { root %%NODEDIR%%; }
        location = /part { coord_idempotency off; root %%NODEDIR%%; }
        location = /ready { coord_idempotency off; coord_health;
                            add_header X-Pid $pid always; }
    }
EOT

my $n = 0;

sub node {
    my ($name, $port, $timeout) = @_;

    my $node = $t->node(name => $name, workers => 2,
                        http => $http =~ s/%%TO%%/$port/r
                                      =~ s/%%TIMEOUT%%/$timeout/r);
    spew($node->file($_), "$_\n") for qw(sorry part);

    $node->start;

    # all workers are connected

    $node->all_workers('/ready?', sub { $_[0]->status == 200 });

    return $node;
}

my $a = node('a', $away->port, '5s');
my $b = node('b', $redis->{port}, '5s');


sub post {
    my ($path, $key) = @_;

    return Coord::HTTP::format(method => 'POST', path => $path, keepalive => 1,
        body => 'x', headers => { 'Idempotency-Key' => $key,
            $path =~ /gzip/ ? ('Accept-Encoding' => 'gzip') : () });
}


# the second request is on its way as soon as the first one is answered, over
# a connection that was there before; several pairs at a time

sub pairs {
    my ($path) = @_;

    my (%status, $differ);

    for (1 .. $tries / $crowd) {
        my @pairs = map { { bytes => post($path, 'k' . ++$n),
                            c => [ map { $_->connect } $a, $b ] } } 1 .. $crowd;

        $_->{c}[0]->send($_->{bytes}) for @pairs;

        for my $node (0, 1) {
            for my $pair (@pairs) {
                push @{$pair->{r}}, $pair->{c}[$node]->response(
                    method => 'POST', timeout => 20);
                $pair->{c}[1]->send($pair->{bytes}) if !$node;
            }
        }

        for my $pair (@pairs) {
            my @r = @{$pair->{r}};

            $status{join ' ', map { $_->status } @r}++;
            $differ++ if $r[0]->body ne $r[1]->body
                         || grep { $_->header('Idempotency-Replayed') } @r;
            $_->close for @{$pair->{c}};
        }
    }

    return (\%status, $differ || 0);
}

my $held = $b->connect;
$held->send(post('/locked/held', 'holder'));
$t->wait_for(sub { scalar $origin->requests('/locked/held') }, 10);

for my $case (['/again', 503], ['/nothing', 503], ['/chunked', 503],
              ['/closed', 503], ['/later', 200], ['/web', 200],
              ['/weblong', 200], ['/broken', 502], ['/refused/', 502],
              ['/unbuffered/again', 503], ['/unbuffered/nothing', 503],
              ['/unbuffered/web', 200], ['/fastcgi/again', 503],
              ['/session/again', 503], ['/gzip/denied', 403],
              ['/parts/later', 200], ['/after/again', 503],
              ['/page/again', 503], ['/locked/kept', 423])
{
    my ($path, $code) = @$case;
    my ($status, $differ) = pairs($path);

    is_deeply($status, { "$code $code" => $tries }, "$path: no 409");
    is($differ, 0, "$path: the same, and not replayed");
    is(scalar($origin->requests($path)), 2 * $tries, "$path: both ran")
        if $path !~ /fastcgi|refused|locked/;
}

$origin->release('/locked/held');
$held->close;


# bodies are whole, behind other filters as well

is($a->post('/parts/later', 'x', headers => { 'Idempotency-Key' => 'parts' })
   ->body, "part\n${kib}part\n", 'with parts of subrequests');
is($a->post('/page/again', 'x', headers => { 'Idempotency-Key' => 'page' })
   ->body, "sorry\n", 'an error page');


# streams of HTTP/2

{
    my %h2 = map { $_ => Coord::HTTP2->new(port => $_->port(2)) } $a, $b;

    for my $path ('/again', '/nothing', '/chunked', '/web', '/gzip/denied') {
        my %got;

        for (1 .. $crowd) {
            my @h = (method => 'POST', body => 'x',
                     headers => ['idempotency-key' => 'k' . ++$n]);
            my @s = map {
                $h2{$_}->ended($h2{$_}->request($path, @h), 10)->{status}
            } $a, $b;

            $got{"@s"}++;
        }

        my ($code) = $answers{(split m!/!, $path)[-1]}{status} || 200;
        is_deeply(\%got, { "$code $code" => $crowd },
                  "HTTP/2, $path: no 409");
    }

    $_->close for values %h2;
}


# of one connection: in order, and none is lost

{
    my $c = $a->connect;

    $c->send(join '', map { post($_, 'k' . ++$n) }
             '/again', '/kept', '/nothing', '/chunked', '/again', '/kept');
    is(join(' ', map { my $r = $c->response(method => 'POST', timeout => 20);
                       $r->status . '/' . length $r->body } 1 .. 6),
       '503/1024 200/1024 503/0 503/1024 503/1024 200/1024',
       'one behind the other in a connection');
    $c->close;
}


# half a second to hear of it, and half to claim

my $far = node('far', $slow->port, '10s');

{
    my $start = time;
    my $r = $far->post('/again', 'x', headers => { 'Idempotency-Key' => 's' });

    is($r->body, $kib, 'Redis is slow: whole');
    cmp_ok(time - $start, '>=', 1, 'not before the key is known to be free');

    $start = time;
    $r = $far->post('/kept', 'x', headers => { 'Idempotency-Key' => 'r' });
    is($r->status, 200, 'a result');
    cmp_ok(time - $start, '>=', 0.5, 'is claimed');
}


# a large one is not gathered meanwhile

{
    my @rss = map { rss($_) } $far->workers;
    my $r = $far->post('/unbuffered/big', 'x',
                       headers => { 'Idempotency-Key' => 'big' });

    is(length $r->body, 32 * 1024 * 1024, 'a large one is whole');

    my $grown = 0;
    $grown += rss($_) for $far->workers;
    $grown -= $_ for @rss;
    cmp_ok($grown, '<', 8 * 1024, 'and not gathered in memory');
}

sub rss { return slurp("/proc/$_[0]/status") =~ /^VmHWM:\s+(\d+)/m ? $1 : 0 }


# whose client leaves while it waits

{
    my $pid = join ' ', $far->workers;

    for my $path ('/again', '/unbuffered/again', '/web', '/kept') {
        my $c = $far->connect;
        my $seen = scalar $origin->requests($path);

        $c->send(post($path, "left$path"));
        $t->wait_for(sub { $origin->requests($path) > $seen }, 10);
        $c->close;
    }

    ok($t->wait_for(sub {
        $b->post('/again', 'x', headers => {
            'Idempotency-Key' => 'left/again' })->status == 503 }, 10),
       'the client has left: the key is free');
    is(join(' ', $far->workers), $pid, 'and no worker has died');
}


# whose worker is to exit

{
    my $c = $far->connect;
    my $seen = scalar $origin->requests('/held');

    $c->send(post('/held', 'reload'));
    $t->wait_for(sub { $origin->requests('/held') > $seen }, 10);

    my @old = $far->reload;
    $origin->release('/held');
    is($c->response(method => 'POST', timeout => 20)->status, 503,
       'of a worker that exits');
    ok($far->wait_gone(20, @old), 'which it does then');
    $c->close;
}


# Redis stands still, or is gone, between the claim and the end

my $brief = node('brief', $redis->{port}, '2s');

for my $case (['STOP', '/held'], ['STOP', '/unbuffered/held'], ['KILL', '/held'])
{
    my ($signal, $path) = @$case;
    my $c = $brief->connect;
    my $seen = scalar $origin->requests($path);

    $c->send(post($path, "held$path$signal"));
    $t->wait_for(sub { $origin->requests($path) > $seen }, 10);

    $signal eq 'KILL' ? $redis->stop : $redis->freeze;

    my ($start, $ran) = (time, $t->ran);
    $origin->release($path);
    my $r = $c->response(method => 'POST', timeout => 20);
    my ($took, $used) = (time - $start, $t->ran - $ran);

    is($r->status, 503, "$path, $signal: answered all the same");

    if ($signal eq 'STOP') {
        kill 'CONT', $redis->{pid};
        cmp_ok($took, '>=', 1.7, 'when its time is over');
        cmp_ok($used, '<', 4, 'and no later');
        ok($t->wait_for(sub {
            $b->post($path =~ s/held/again/r, 'x', headers => {
                'Idempotency-Key' => "held$path$signal" })->status != 409 },
            10), 'the key is free when Redis is there again');

    } else {
        cmp_ok($used, '<', 1.7, 'at once');
    }

    $c->close;
}


# in memory it is free at once: nothing waits for a store that is away

{
    my $m = $t->node(name => 'memory', workers => 2, http => <<'EOT')->start;
        coord_idempotency on;
        coord_idempotency_scope off;

        server {
            listen 127.0.0.1:%%PORT%%;
            location / { proxy_pass http://%%ORIGIN%%; }
        }
EOT

    my %status;

    for (1 .. $tries) {
        my $key = 'k' . ++$n;
        my @c = map { $m->connect } 1, 2;

        $status{join ' ', map {
            $_->send(post('/again', $key));
            $_->response(method => 'POST', timeout => 20)->status
        } @c}++;
        $_->close for @c;
    }

    is_deeply(\%status, { '503 503' => $tries }, 'memory: no 409');
}

$_->allow(qr/connect\(\) (to|failed)/, qr/store "main"/, qr/prematurely closed/)
    for $a, $b, $far, $brief;

done_testing();
