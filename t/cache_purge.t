#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_cache: purges beside all that goes on: fills of other nodes, updates in
# the background, requests that wait for a fill, variants, a fail-over.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Sentinel;

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect(die => 1);
my $watch = $redis->watch;
my $n = 0;

my $origin = $t->origin(default => sub {
    my ($req) = @_;
    my %arg = %{$req->{args}};

    ++$n;

    return { headers => [ 'Cache-Control' => $arg{cc} || 'max-age=600',
                          $arg{tag} ? ('Surrogate-Key' => $arg{tag}) : (),
                          $arg{vary} ? (Vary => 'X-V') : () ],
             hold => $arg{slow} || $req->{headers}{'x-slow'} ? 1 : 0,
             body => "$n" };
});

my $locations = <<'EOT';
    coord_cache_zone zone=pages:4m;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Cache $coord_cache_status always;
        location / { coord_cache $arg_k zone=pages lock stale=1h;
                     proxy_pass http://%%ORIGIN%%; }
        location /api/ { coord_api write; }
    }
EOT

my $http = "    coord_store main { server %%REDIS%%; timeout 20s; connect_timeout 20s; }\n$locations";

my ($a, $b, $c) = map { $t->node(name => $_, workers => 2, http => $http)
                        ->start } qw(a b c);

sub sent {
    my ($node, $method, $uri, %headers) = @_;

    my $con = $node->connect;
    $con->send("$method $uri HTTP/1.1\r\nHost: x\r\n"
               . join('', map { "$_: $headers{$_}\r\n" } keys %headers)
               . ($method eq 'POST' ? "Content-Length: 1\r\n\r\nx" : "\r\n"));
    return $con;
}

sub purge {
    my ($how, $k) = @_;

    return $how eq 'POST' ? $a->post("/?k=$k", 'x')
           : $a->request('DELETE', "/api/cache/pages?$how=$k");
}

sub near {
    my ($node, $uri, %opt) = @_;

    ok($t->wait_for(sub {
        $watch->seen;
        $node->get($uri, %opt) for 1 .. 12;
        return $watch->calls('get') == 0;
    }, 20), "$uri is in memory of $node->{name}");
}

sub stored {
    my ($k, $by) = @_;

    return ok($t->wait_for(sub {
        ($by || $r)->command(EXISTS => "coord:ca:pages:{$k}:r") }, 10),
        "$k is stored");
}


# --- a third node fills, others wait for that ---

for my $how (qw(POST key tag)) {
    my $k = "fill$how";
    my $path = "/$k";
    my $uri = "$path?k=$k&tag=$k";

    my $fills = sent($c, GET => $uri, 'X-Slow' => 1);
    ok($t->wait_for(sub { $origin->count($path) }, 10), "$how: it is fetched");
    my @wait = map { sent($_, GET => $uri) } $a, $b, $b;
    ok($t->wait_for(sub { $watch->calls('zadd') >= 3 }, 10), 'others wait');

    is(purge($how, $k)->status, 200, 'it is purged');
    my $since = $n;
    ok($origin->release($path), 'the fill ends');
    my $old = $fills->response('GET', 20)->body;

    my @body = map { $_->response('GET', 20)->body } @wait;
    is(scalar(grep { $_ eq $old } @body), 0, 'nobody is sent what it was');
    is(scalar(grep { $_->get($uri)->body eq $old } ($a, $b, $c) x 3), 0,
       'nor later');
}


# --- an update in the background ---

for my $how (qw(POST key tag)) {
    my $k = "update$how";
    my $path = "/$k";
    my $uri = "$path?k=$k&tag=$k&cc=max-age=1,stale-while-revalidate=600";

    my $old = $a->get($uri)->body;
    stored($k);
    my $updates;
    ok($t->wait_for(sub {
        my $con = sent($b, GET => $uri, 'X-Slow' => 1);
        $updates = $con;
        return $con->response('GET', 10)->header('x-cache') eq 'STALE';
    }, 10), "$how: the origin is asked in the background");
    ok($t->wait_for(sub { $origin->count($path) == 2 }, 10), 'which takes');
    is($c->get($uri)->header('x-cache'), 'UPDATING', 'others use the old one');

    is(purge($how, $k)->status, 200, 'it is purged');
    my @new = map { sent($_, GET => $uri) } $a, $c;
    $origin->release($path);
    @new = map { $_->response('GET', 20)->body } @new;
    is(scalar(grep { $_ <= $old + 1 } @new), 0, 'nobody is sent the old one');
    is(scalar(grep { $_->get($uri)->body <= $old + 1 } ($a, $b, $c) x 3), 0,
       'nor later what has come in the background');
}


# --- many variants ---

for my $how (qw(POST key tag)) {
    my $k = "vary$how";
    my $uri = "/?k=$k&tag=$k&vary=1";
    my %opt = map { $_ => [ headers => { 'X-V' => $_ } ] } 1 .. 20;
    my %old;

    $old{$_} = $a->get($uri, @{$opt{$_}})->body for sort keys %opt;
    ok($t->wait_for(sub {
        return !grep { $c->get($uri, @{$opt{$_}})->header('x-cache') ne 'HIT' }
                keys %opt;
    }, 20), "$how: 20 variants are stored");

    # some are in memory

    near($b, $uri, @{$opt{$_}}) for 1 .. 4;
    $old{$_} = $b->get($uri, @{$opt{$_}})->body for keys %opt;

    is(purge($how, $k)->status, 200, 'all are purged');
    is(scalar(grep { $b->get($uri, @{$opt{$_}})->body eq $old{$_} } keys %opt),
       0, 'and no variant is used');
    is(scalar(grep { $c->get($uri, @{$opt{$_}})->body eq $old{$_} } keys %opt),
       0, 'on no node');
}


# --- what is in memory when the news stop ---

my %stop = (
    'CLIENT KILL' => sub { $r->command(qw(CLIENT KILL TYPE pubsub)) },
    'FLUSHALL' => sub { $r->command('FLUSHALL') },
);

sub listeners {
    return scalar(() = $r->command(qw(CLIENT LIST TYPE pubsub)) =~ /^id=/mg);
}


my $listeners = listeners();

for my $what (sort keys %stop) {
    my $k = 'stop' . ($what =~ /(\w)/)[0];
    my $uri = "/?k=$k";

    for my $round (1 .. 10) {
        my $old = $b->get($uri)->body;
        $b->get($uri) for 1 .. 12;
        $stop{$what}->();
        purge($round % 2 ? 'POST' : 'key', $k);

        # who has found out that he has heard nothing listens again

        $t->wait_for(sub { listeners() >= $listeners }, 10);

        my @new = map { $b->get($uri)->body } 1 .. 4;
        my $is = grep { $_ eq $old } @new;
        is($is, 0, "$what, round $round: no old page") if $is || $round == 10;
    }
}


# --- a connection that is silently dead: the news do not come ---

{
    my $fake = $t->fake_redis(upstream => $redis->{port});
    my $d = $t->node(name => 'd', workers => 2,
                     http => $http =~ s/server %%REDIS%%; timeout 20s/server
                             %%FAKE%%; timeout 200ms/r)->start;

    $d->allow(qr/coord|past the cache/);
    $a->get('/?k=dead');
    stored('dead');
    near($d, '/?k=dead');

    my $old = $d->get('/?k=dead')->body;
    $fake->freeze;
    is(purge('POST', 'dead')->status, 200, 'purged, and one is not told');

    my $since = $t->ran;
    ok($t->wait_for(sub {
        !grep { $d->get('/?k=dead')->body eq $old } 1 .. 6;
    }, 30), 'it knows in time');
    my $took = $t->ran - $since;
    cmp_ok($took, '<', 5, "that is 3 seconds: $took");
    $fake->thaw;
}


# --- a fail-over ---

{
    my $s = Coord::Sentinel->start($t);

    $t->set(SENTINELS => $s->lines);

    my $http = "    coord_store main { %%SENTINELS%% mode sentinel=mymaster;
                    timeout 2s; connect_timeout 1s; }\n$locations";
    my @f = map { $t->node(name => "f$_", workers => 2, http => $http)->start }
            1, 2;

    $_->allow(qr/coord|not known to be purged|past the cache/) for @f;

    my $uri = '/?k=over&tag=over';
    my $word = sub { $_[0]->get($uri)->header('x-cache') };

    ok($t->wait_for(sub { $word->($f[0]) eq 'HIT' }, 20), 'it is stored');
    $word->($f[1]) for 1 .. 24;
    my $old = $f[1]->get($uri)->body;

    # the replica has it

    ok($t->wait_for(sub {
        $s->replica->connect->command(EXISTS => 'coord:ca:pages:{over}:r')
    }, 10), 'and passed on');

    my $master = $s->master;
    kill 'STOP', $master->{pid};

    my $waits = sent($f[0], POST => $uri);
    my $res = $waits->response('POST', 20);
    is($res->status, 200, 'it is changed while there is no master');
    ok($f[0]->wait_log(qr/not known to be purged/, 5), 'which is told');
    ok($s->failed_over(20), 'another master');
    kill 'CONT', $master->{pid};

    # a request that goes past the cache has a new one as well

    ok($t->wait_for(sub {
        my @r = map { $_->get($uri) } @f, @f, @f, @f;
        return !grep { $_->body eq $old
                       || $_->header('x-cache') !~ /^(?:HIT|MISS)$/ } @r;
    }, 20), 'it is purged there');
    is(scalar(grep { $_->get($uri)->body eq $old } @f, @f, @f, @f), 0,
       'by all');
}

done_testing();
