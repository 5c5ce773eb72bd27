#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_cache: what is often asked for is in the shared memory of the node, and
# is what the store has.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;
my $watch = $redis->watch;

my $n = 0;
$t->origin(default => sub {
    my ($req) = @_;
    my %arg = $req->{uri} =~ /[?&](\w+)=([^&]*)/g;

    return { headers => [ETag => '"e"', 'Content-Type' => 'text/plain',
                         $arg{tag} ? ('Surrogate-Key' => $arg{tag}) : (),
                         $arg{vary} ? (Vary => $arg{vary}) : (),
                         'Cache-Control' => 'max-age=' . ($arg{age} || 60)],
             body => 'body ' . ++$n . ' ' . "\0\r\n" x ($arg{big} || 4) };
});

my $http = <<'EOT';
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_cache_zone zone=pages:4m;
    coord_session_zone $http_x_session zone=bound;
    coord_limit_req_zone $stem zone=stemmed rate=1000r/s;
    coord_lookup $stem app:$http_x_stem zone=stems;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Cache $coord_cache_status always;
        location / { coord_cache $arg_k zone=pages;
                     proxy_pass http://%%ORIGIN%%; }
        location /bound { coord_session zone=bound bind=$http_x_client;
                          coord_cache $arg_k zone=pages;
                          proxy_pass http://%%ORIGIN%%; }
        location /later { coord_limit_req zone=stemmed after_auth;
                          coord_cache $arg_k zone=pages;
                          proxy_pass http://%%ORIGIN%%; }
        location /status { coord_status; }
        location /api/ { coord_api write; }
    }
EOT

my $a = $t->node(name => 'a', workers => 2, http => $http)->start;
my $b = $t->node(name => 'b', workers => 2, http => $http)->start;

# responses of a node, and how many of them Redis was asked for

sub asked {
    my ($node, $times, $uri, %opt) = @_;

    $watch->seen;
    my @all = map { $node->get($uri, %opt) } 1 .. $times;

    return ($watch->calls('get'), @all);
}

sub stored {
    my ($k) = @_;

    ok($t->wait_for(sub {
        $r->command(EXISTS => "coord:ca:pages:{$k}:r");
    }, 5), "$k is stored");
}

# near: all workers of a node answer from memory

sub near {
    my ($node, $uri, %opt) = @_;

    return $t->wait_for(sub { (asked($node, 12, $uri, %opt))[0] == 0 }, 10);
}

sub words { return join ' ', map { $_->header('x-cache') // '-' } @_ }

my $first = $a->get('/?k=1');
is($first->header('x-cache'), 'MISS', 'the first one');
stored(1);
ok(near($b, '/?k=1'), 'often asked for: Redis is not asked any more');
my ($gets, @all) = asked($b, 8, '/?k=1');
is($gets, 0, 'by no worker');
is(words(@all), join(' ', ('HIT') x 8), 'all are hits');
is(scalar(grep { $_->body eq $first->body } @all), 8, 'with the body');
is($all[0]->header('content-type'), 'text/plain', 'and the fields');
is($b->request('HEAD', '/?k=1')->header('x-cache'), 'HIT', 'HEAD');
is($b->get('/?k=1', headers => { 'If-None-Match' => '"e"' })->status, 304,
   'a condition');
is($b->get('/?k=1', headers => { Range => 'bytes=0-3' })->body, 'body',
   'a range');
ok($t->wait_for(sub { ($b->get('/?k=1')->header('age') // 0) >= 1 }, 5),
   'its age grows');

sub purge {
    is($a->request('DELETE', "/api/cache/pages?$_[0]")->status, 200,
       "purge: $_[0]");
}

# --- a page that was purged and has come again, in one of its variants ---

my $page = sub {
    return $b->get('/?k=v&vary=Accept', headers => { Accept => $_[0] },
                   timeout => 5);
};

is($page->($_)->header('x-cache'), 'MISS', "variant $_") for qw(x y);
ok(near($b, '/?k=v&vary=Accept', headers => { Accept => $_ }),
   "variant $_ is in memory") for qw(x y);
my %old = map { $_ => $page->($_)->body } qw(x y);

for my $round (1 .. 2) {
    my ($again, $other) = $round == 1 ? qw(x y) : qw(y x);

    purge('key=v');
    ok($t->wait_for(sub {
        my $r = $page->($again);
        return $r->header('x-cache') eq 'HIT' && $r->body ne $old{$again};
    }, 10), "purged, $again is there again");

    my $r = $page->($other);
    is($r->status, 200, "$other is answered");
    is($r->header('x-cache'), 'MISS', "$other is asked for");
    isnt($r->body, $old{$other}, "$other is not the old one");

    ok(near($b, '/?k=v&vary=Accept', headers => { Accept => $_ }),
       "variant $_ is in memory again") for qw(x y);
    %old = map { $_ => $page->($_)->body } qw(x y);
}


# --- purge by key ---

purge('key=1');
ok($t->wait_for(sub { $b->get('/?k=1')->body ne $first->body }, 2),
   'a purge is heard by the other node');
ok($t->wait_for(sub { $a->get('/?k=1')->body ne $first->body }, 2),
   'and by all workers of the first');
is(scalar(grep { $_->get('/?k=1')->body eq $first->body } ($a, $b) x 8), 0,
   'the old page is gone');

# --- tags ---

my $tagged = $a->get('/?k=2&tag=news');
stored(2);
ok(near($b, '/?k=2'), 'one with tags');
purge('tag=news');
ok($t->wait_for(sub { $b->get('/?k=2')->body ne $tagged->body }, 2),
   'a purge by tag is heard');
is(scalar(grep { $b->get('/?k=2')->body eq $tagged->body } 1 .. 8), 0,
   'by all workers');

# --- variants ---

my @lang = map { { 'Accept-Language' => $_ } } qw(en de);
my @page;

sub variants { scalar @{$r->command(KEYS => 'coord:ca:pages:{~*:r')} }

my $variants = variants();
for (@lang) {
    push @page, $a->get('/?k=3&vary=Accept-Language', headers => $_);
    ok($t->wait_for(sub { variants() == $variants + @page }, 5),
       'a variant is stored');
}
ok(near($b, '/?k=3', headers => $lang[$_]), 'a variant') for 0, 1;
for (0, 1, 0) {
    my ($gets, $res) = asked($b, 1, '/?k=3', headers => $lang[$_]);
    is("$gets " . $res->body, '0 ' . $page[$_]->body, 'the right one');
}

# --- the end of its life ---

$a->get('/?k=4&age=3');
stored(4);
$b->get('/?k=4&age=3') for 1 .. 12;
ok($t->wait_for(sub { $b->get('/?k=4&age=3')->header('x-cache') eq 'MISS' },
                6), 'it is fresh no longer than in the store');

# --- Redis is flushed ---

my $old = $a->get('/?k=5');
stored(5);
ok(near($b, '/?k=5'), 'near');
$r->command('FLUSHALL');
ok($t->wait_for(sub { $b->get('/?k=5')->header('x-cache') eq 'MISS' }, 2),
   'a flush is heard');

# --- what cannot be heard is not trusted ---

$a->get('/?k=6');
stored(6);
ok(near($b, '/?k=6'), 'near');
$r->command(qw(CLIENT KILL TYPE pubsub));
ok($t->wait_for(sub { (asked($b, 4, '/?k=6'))[0] > 0 }, 2),
   'without the connection Redis is asked');
ok(near($b, '/?k=6'), 'and later it is near again');

# --- a page that a request changes: its node knows without the news of it ---

$a->get('/?k=own');
stored('own');
ok(near($a, '/?k=own'), 'a page is in memory');
$redis->freeze;
my $post = $a->connect;
$post->send("POST /?k=own HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx");
my $waits;
ok($t->wait_for(sub {
    $waits = $a->connect;
    $waits->send("GET /?k=own HTTP/1.1\r\nHost: x\r\n\r\n");
    return !$waits->read(0.3);
}, 10), 'changed, and Redis tells nothing: it is asked');
kill 'CONT', $redis->{pid};
is($post->response('POST', 20)->status, 200, 'the client is told');
is($waits->response('GET', 20)->header('x-cache'), 'MISS', 'it is purged');

# --- a page in memory, of a request that is refused before it is looked at ---

my @pids = sort $b->workers;
my %mine = ('X-Session' => 'one', 'X-Client' => 'me');

$a->get('/?k=ref');
stored('ref');
is($b->get('/bound?k=ref', headers => \%mine)->status, 200, 'a session');
ok(near($b, '/?k=ref'), 'and a page');
is($b->get('/bound?k=ref', headers => \%mine)->header('x-cache'), 'HIT',
   'it is served to whom it is bound to');
is($b->get('/bound?k=ref', headers => { %mine, 'X-Client' => 'thief' })->status,
   403, 'and to nobody else') for 1 .. 8;

# one who leaves while Redis is asked for the session

$redis->freeze;
my @gone = map { $b->connect } 1 .. 4;
$gone[$_]->send("GET /bound?k=ref HTTP/1.1\r\nHost: x\r\n"
                . "X-Session: new$_\r\n\r\n") for 0 .. $#gone;
$t->rest(0.3);
$_->reset for @gone;
$t->rest(0.3);
kill 'CONT', $redis->{pid};

# and one whose limit needs a look-up first, so that all begin once more

is($b->get("/later?k=ref", headers => { 'X-Stem' => $_ })->header('x-cache'),
   'HIT', 'a page of a request that begins anew') for 1 .. 4;
is("@{[sort $b->workers]}", "@pids", 'no worker has died');

# --- a large one ---

$a->get('/?k=7&big=40000');
stored(7);
$b->get('/?k=7') for 1 .. 12;
($gets, @all) = asked($b, 4, '/?k=7');
is(words(@all), 'HIT HIT HIT HIT', 'a large one');
cmp_ok($gets, '>=', 4, 'is asked of Redis');

# --- a user who may not track ---

$r->command(qw(ACL SETUSER plain on >secret ~* &* +@all -client|tracking
               -client|caching -publish));
my $c = $t->node(name => 'c', workers => 1, http =>
                 $http =~ s/server %%REDIS%%;/$& username plain;
                            password_file %%TESTDIR%%\/pass;/r);
open(my $fh, '>', $t->dir . '/pass') or die $!;
print $fh "secret\n";
close $fh;
$c->start;
$a->get('/?k=8');
stored(8);
$c->get('/?k=8') for 1 .. 12;
($gets, @all) = asked($c, 4, '/?k=8');
is(words(@all), 'HIT HIT HIT HIT', 'without tracking');
cmp_ok($gets, '>=', 4, 'Redis is asked');
purge('key=8');
is($c->get('/?k=8')->header('x-cache'), 'MISS', 'and a purge holds at once');
stored(8);
$old = $b->get('/?k=8')->body;
is($c->post('/?k=8', 'x')->status, 200, 'without the right to publish');
isnt($b->get('/?k=8')->body, $old, 'it is purged');
like($c->request('GET', '/status?format=prometheus')->body,
     qr/^coord_breaker_open\{store="main"\} 0$/m, 'and nothing is amiss');

done_testing();
