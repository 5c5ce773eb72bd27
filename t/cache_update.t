#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_cache: stale-while-revalidate of a response (RFC 5861): nobody waits for
# the origin, which is asked in the background.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Pages;
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;

my $origin = $t->origin(default => \&answered);

my $http = <<'EOT';
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_cache_zone zone=pages:4m;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Cache $coord_cache_status always;

        location / {
            coord_cache $uri zone=pages max=200k;
            proxy_pass http://%%ORIGIN%%;
            proxy_http_version 1.1;
            proxy_set_header Connection '';
        }
        location /lock {
            coord_cache $uri zone=pages lock;
            proxy_pass http://%%ORIGIN%%;
        }
        location /page {
            coord_cache $uri zone=pages;
            proxy_pass http://%%ORIGIN%%;
            proxy_intercept_errors on;
            error_page 404 503 = @sorry;
        }
        location @sorry { return 200 sorry; }
        location /direct {
            coord_cache $uri zone=pages max=200k;
            proxy_pass http://%%ORIGIN%%;
            proxy_buffering off;
        }
        location /small {
            coord_cache $uri zone=pages max=200k;
            proxy_pass http://%%ORIGIN%%;
            proxy_buffer_size 1k;
            proxy_buffers 2 1k;
            proxy_busy_buffers_size 1k;
            proxy_max_temp_file_size 0;
        }
        location /tried {
            coord_cache $uri zone=pages;
            try_files /none @tried;
        }
        location @tried { proxy_pass http://%%ORIGIN%%; }
        location /status { coord_status; }
    }
EOT

my $a = $t->node(name => 'a', workers => 2, http => $http)->start;
my $b = $t->node(name => 'b', workers => 2, http => $http)->start;

my $n = 0;
my @tag = (ETag => '"e"');

my $while = 'stale-while-revalidate=60';

sub fields { return ['Cache-Control' => "max-age=30, $while", @_] }

sub has {
    my ($uri) = @_;
    my ($path) = $uri =~ /^([^?]*)/;

    return $r->command('EXISTS', "coord:ca:pages:{$path}:r");
}

# pages that are stale, all of them at once: their paths

sub expired {
    my @pages = map { my ($where, $fields, %is) = @$_;
                      ["/$where" . $n++,
                       answer(['Cache-Control' => "max-age=1, $while",
                               @{$fields || [@tag]}], body => 'old', %is)] } @_;

    $t->parallel([map { $a->req("$_->[0]$_->[1]") } @pages]);
    $t->wait_for(sub { !grep { !has($_->[0]) } @pages });
    sleep 1.4;
    $origin->reset_counters;

    return map { $_->[0] } @pages;
}

# the answer for which the origin has waited

sub answers {
    my ($path) = @_;

    $t->wait_for(sub { $origin->count($path) });
    $origin->release($path);
}

sub says {
    my ($res) = @_;

    return join ' ', $res->status, $res->header('x-cache') // '', $res->body;
}

sub ask {
    my ($c, $uri) = @_;

    $c->send("GET $uri HTTP/1.1\r\nHost: x\r\n\r\n");

    return $c->response;
}

# until the origin has answered and that is stored

sub updated {
    my ($path, $body) = @_;

    return $t->wait_for(sub {
        my $res = $b->get($path . answer([]));
        return $res->header('x-cache') eq 'HIT' && $res->body eq $body;
    });
}


# --- what changes ---

my @how = map { my $where = $_; [$where], [$where, 'chunked'] }
          qw(p lock direct small tried);
my @long = (['p', split => 1], ['small', split => 1],
            ['small', split => 1, chunked => 1], ['direct', split => 1],
            ['direct', split => 1, chunked => 1]);
my @old = expired(map({ [$_->[0]] } @how, @long), ['p']);

for (@how) {
    my ($where, $how) = @$_;
    my $name = join ', ', @$_;
    my $path = shift @old;
    my $uri = $path . answer(fields(@tag), body => 'new', hold => 1,
                             $how ? ($how => 1) : ());
    my $begun = $t->ran;

    is(says($a->get($uri)), '200 STALE old', "$name: who comes first");
    cmp_ok($t->ran - $begun, '<', 1, 'does not wait');
    is(says($b->get($uri)), '200 UPDATING old', 'nor does another one');
    answers($path);

    ok(updated($path, 'new'), 'then all have what is new');
    is($origin->count($path), 1, 'one request has asked for it');
    my $seen = ($origin->requests($path))[-1]{headers};
    is($seen->{'if-none-match'}[0], '"e"', 'with a condition');
}

# a long one needs more than the buffers that its location has

for (@long) {
    my ($where, %is) = @$_;
    my $path = shift @old;
    my $uri = $path . answer(fields(@tag), numbered => 1, %is);
    my $c = $a->connect;

    is(ask($c, $uri)->body, 'old', join ' ', "$where, a long one:", %is);
    ok(updated($path, numbered()), 'then all have what is new');
    is(ask($c, "/other$n")->body, 'body', 'the connection goes on');
}


# --- what does not ---

my $path = shift @old;
my $uri = $path . answer(fields(@tag), same => 1);
is(says($a->get($uri)), '200 STALE old', 'a 304');
ok(updated($path, 'old'), 'is good for another life');
is($b->get($uri)->header('content-seen'), 'if-none-match',
   'with the fields that it has brought');


# --- errors: what is stale stands in for them; the connection goes on ---

my @errors = (['p', 503], ['p', 429], ['page', 503], ['tried', 503]);
my @kept = (['p', ['Cache-Control' => 'no-store']], ['p', [], status => 404],
            ['p', [], large => 300_000],
            ['p', [], large => 300_000, chunked => 1],
            (map { [$_, [], large => 300_000, chunked => 1] } qw(small direct)));

@old = expired(map { [$_->[0]] } @errors, @kept, ['p']);

for (@errors) {
    my ($where, $status) = @$_;
    my $path = shift @old;
    my $c = $a->connect;
    my $uri = $path . answer([], status => $status);

    is(ask($c, $uri)->body, 'old', "$where, $status: $_") for 1 .. 3;
    ok($t->wait_for(sub { $origin->count($path) >= 3 }),
       'the origin is asked each time');
    is(ask($c, "/other$n")->body, 'body', 'the connection goes on');
}


# --- what cannot be kept takes its place nevertheless ---

for (@kept) {
    my ($where, $fields, %is) = @$_;
    my $path = shift @old;
    my $uri = $path . answer($fields, %is);
    my $c = $a->connect;
    my $new = $is{large} ? 'x' x $is{large} : 'body';

    is(ask($c, $uri)->body, 'old', join ' ', $where, @$fields, %is);
    ok($t->wait_for(sub { $b->get($uri)->body eq $new }), 'then what is new');
    is(ask($c, $uri)->body, $new, 'on the same connection');
}

$path = shift @old;
$origin->refuse;
like(says($a->get($path)), qr/^200 (?:STALE|UPDATING) old$/,
     "without its origin: $_") for 1 .. 3;
$origin->accept;


# --- clients ---

@old = expired(['p', [@tag, Vary => 'X-Who']], ['p'],
               ['p', undef, numbered => 1], ['p'], ['p'], ['lock']);

$path = shift @old;
is($b->get($path, headers => ['X-Who' => 'me'])->header('x-cache'), 'MISS',
   'another variant');

$path = shift @old;
$uri = $path . answer(fields(@tag), body => 'new', hold => 1);
my $res = $a->get($uri, headers => ['If-None-Match' => '"e"', 'X-Own' => 1]);
is($res->status, 304, 'who has it');
answers($path);
ok(updated($path, 'new'), 'then what is new');
my $seen = ($origin->requests($path))[-1]{headers};
is($seen->{'x-own'}[0], 1, 'the origin is asked with the fields of the client');

$path = shift @old;
$uri = $path . answer(fields(@tag), body => 'new', hold => 1);
$res = $a->get($uri, headers => [Range => 'bytes=8-15', 'If-Range' => '"e"']);
is($res->status . ' ' . $res->body, '206 X000001X', 'who wants a part');
answers($path);
ok(updated($path, 'new'), 'then what is new');
ok(!($origin->requests($path))[-1]{headers}{range}, 'all of it');

$path = shift @old;
my $c = $a->connect;
$c->send("GET $path" . answer(fields(@tag), body => 'new', hold => 1)
         . " HTTP/1.1\r\nHost: x\r\n\r\n");
is($c->response->body, 'old', 'a client that goes');
$c->close;
answers($path);
ok(updated($path, 'new'), 'ends nothing');

$path = shift @old;
is($a->request('HEAD', $path . answer(fields(@tag)))->header('x-cache'),
   'EXPIRED', 'HEAD goes to the origin itself');

$path = shift @old;
my @res = $t->parallel([map { $_->req($path . answer(fields(@tag), body => 'new',
                                                     hold => 1)) }
                        ($a, $b) x 5]);
is_deeply([sort map { $_->header('x-cache') } @res],
          ['STALE', ('UPDATING') x 9], 'ten at once: one asks');
answers($path);
ok(updated($path, 'new'), 'for all');
is($origin->count($path), 1, 'once');

my %count;

for (map { $_->get('/status?format=prometheus')->body } $a, $b) {
    $count{$1} += $2 while /^coord_decisions_total\{feature="cache",zone="pages",
                           outcome="(\w+)"\}\ (\d+)/gmx;
}

is($count{expired}, 1, 'what is asked in the background is no request');
is($count{revalidated} || 0, 0, 'whatever becomes of it');

is_deeply([grep { /\[(?:alert|crit|emerg)\]/ } map { $_->log } $a, $b], [],
          'nothing to worry about in the logs');

done_testing();
