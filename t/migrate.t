#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# The configurations of the pages on coming from something else, at work: they
# admit as many as the settings that stand beside them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP2;
use Coord::Util qw(patient slurp);

my $root = "$FindBin::Bin/..";
my $t = Coord->new;
my $origin = $t->origin(routes => {
    '/slow' => { delay => 2, body => 'slow' },
});

my $pages = 0;

# the configuration of a page, with a Redis of its own; changes are told

sub page {
    my ($name, @changes) = @_;
    my ($block) = slurp("$root/docs/migrate_$name.md") =~ /^```nginx\n(.*?)^```/ms;
    my $redis = $t->redis;

    $pages++;

    while (my ($from, $to) = splice @changes, 0, 2) {
        ok($block =~ s/\Q$from\E/$to/, "$name: $from");
    }

    $block =~ s{redis://127\.0\.0\.1:6379}{redis://127.0.0.1:$redis->{port}};
    $block =~ s{127\.0\.0\.1:8081}{%%ORIGIN%%}g;
    $block =~ s/server \{\n/server {\n    listen 127.0.0.1:%%PORT%%;\n/;

    my $n = $t->node(name => "$name$pages", http => $block);
    my ($good, $out) = $n->check;

    unlike($out, qr/\[warn\]/, "$name: no warning");

    return $n->conf(http => patient($block))->start;
}

sub passed {
    my ($status, @responses) = @_;
    my %seen;

    $seen{$_->status}++ for @responses;
    is(join(' ', sort keys %seen), "200 $status", "others get $status")
        if @responses > ($seen{200} || 0);

    return $seen{200} || 0;
}


# Kong: windows by a header, or else by the address; a path

{
    my $n = page('kong');
    my @key = (headers => { 'X-Api-Key' => 'alice' });

    is(passed(429, map { $n->get('/', @key) } 1 .. 25), 20,
       'kong: minute: 20, for a header');
    is(passed(429, map { $n->get('/') } 1 .. 25), 20,
       'kong: and for the address of who has none');
    is($n->get('/', headers => { 'X-Api-Key' => 'bob' })->status, 200,
       'kong: another one');
    is(passed(429, map { $n->get('/login', headers => { 'X-Api-Key' => $_ }) }
                       1 .. 8), 5, 'kong: a path, whoever asks');

    # another path than that of the limit: by the address, as Kong does

    my $m = page('kong', 'coord_limit_req_zone /login zone=login'
                 => 'map $uri $by_path { /login /login; default $remote_addr; }'
                    . "\ncoord_limit_req_zone \$by_path zone=login",
                 'coord_limit_req zone=minute;' => 'coord_limit_req zone=login;');

    is(passed(429, map { $m->get("/$_") } 1 .. 7), 5, 'kong: other paths');
    is(passed(429, map { $m->get('/login') } 1 .. 7), 5, 'kong: count apart');

    # who hides the fields still says when to come back

    $m = page('kong', 'coord_limit_headers legacy' => 'coord_limit_headers off');
    $m->get('/login') for 1 .. 5;
    my $hidden = $m->get('/login');
    ok($hidden->header('Retry-After'), 'kong: hidden, Retry-After stays');
    ok(!defined $hidden->header('X-RateLimit-Limit'), 'kong: hidden');

    my $r = $n->get('/', @key);
    is($r->header('X-RateLimit-Limit'), 20, 'kong: X-RateLimit-Limit');
    is($r->header('X-RateLimit-Remaining'), 0, 'kong: X-RateLimit-Remaining');
    like($r->header('Retry-After'), qr/^[1-6]?\d$/, 'kong: Retry-After');
}

# Kong: what a call of gRPC that is refused hears

{
    my (undef, $block) = slurp("$root/docs/migrate_kong.md")
                         =~ /^```nginx\n(.*?)^```/msg;

    $block =~ s/rate=20r/rate=1r/;
    $block =~ s/server \{\n/server {\n    listen 127.0.0.1:%%PORT%% http2;\n/;

    my $n = $t->node(name => 'grpc', http => patient($block))->start;
    my $h2 = Coord::HTTP2->new(port => $n->port);

    my @call = map {
        my $id = $h2->request('/chat.Chat/Say', method => 'POST', body => 'x',
                              headers => ['content-type', 'application/grpc',
                                          te => 'trailers']);
        $h2->ended($id, 20);
        $h2->stream($id);
    } 1 .. 2;

    isnt($call[0]{status}, 200, 'grpc: nobody is behind it');
    is($call[1]{status}, 200, 'grpc: refused');
    is($call[1]{headers}{'content-type'}, 'application/grpc', 'grpc: its type');
    is($call[1]{headers}{'grpc-status'}, 8, 'grpc: RESOURCE_EXHAUSTED');
    is($call[1]{body}, '', 'grpc: nothing more');
}


# ingress-nginx: rate and multiplier, connections, an allow list

{
    my $n = page('ingress_nginx', '10.0.0.0/8' => '127.0.0.2/32',
                 'rate=10r/s' => 'rate=10r/h');

    is(passed(429, map { $n->get('/') } 1 .. 60), 51,
       'ingress: ten and five times ten');
    is(passed(429, map { $n->get('/', local => '127.0.0.2') } 1 .. 60),
       60, 'ingress: who is on the list is not limited');
}

{
    my $n = page('ingress_nginx');

    is(passed(429, $n->parallel(24, '/slow')), 20, 'ingress: connections');
}


# lua-resty-limit-traffic: a delay, a queue, a count

{
    my $n = page('lua_resty', 'rate=5000r/h' => 'rate=130r/h',
                 'conn 200 wait=500ms queue=100' => 'conn 2000');

    my @all = $n->parallel(120, '/');
    my $passed = passed(503, @all);
    my ($last) = sort { $b <=> $a } map { $_->{time} } @all;

    cmp_ok($passed, '>=', 101, 'lua: 200 a second and a burst of 100');
    cmp_ok($last, '>', 0.3, 'lua: these wait');

    my $rest = passed(503, map { $n->get('/') } 1 .. 40);
    is($passed + $rest, 130, 'lua: the count is that of all');
}

# who waits in vain is refused; a delay holds no place; a look takes none

{
    my $n = page('lua_resty', 'conn 200 wait=500ms queue=100'
                 => 'conn 2 wait=100ms queue=2');
    my @all = $n->parallel(5, '/slow');

    is(passed(503, @all), 2, 'lua: who waits for longer is refused');
}

{
    my $n = page('lua_resty', 'rate=200r/s' => 'rate=1r/s',
                 'conn 200 wait=500ms queue=100' => 'conn 1');

    is(passed(503, map { $n->get('/') } 1 .. 4), 4, 'lua: delayed');
    is(passed(503, $n->parallel(4, '/')), 4, 'lua: without a place');
}

for my $store ('', 'coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }') {
    my $name = $store ? 'redis' : 'memory';

    my $n = $t->node(name => "look_$name", http => <<"EOF")->start;
        $store
        coord_limit_req_zone \$arg_k zone=bucket:1m rate=3r/h;
        coord_limit_req_zone \$arg_k zone=window:1m rate=3r/h
                             algorithm=fixed_window;
        server {
            listen 127.0.0.1:%%PORT%%;
            location /bucket/ { coord_limit_req zone=bucket burst=2 nodelay;
                                empty_gif; }
            location /window/ { coord_limit_req zone=window; empty_gif; }
            location /bucket/look { coord_limit_req zone=bucket burst=2 nodelay
                                                    charge=after cost=0;
                                    empty_gif; }
            location /window/look { coord_limit_req zone=window charge=after
                                                    cost=0; empty_gif; }
        }
EOF

    for my $z (qw(bucket window)) {
        is(passed(429, map { $n->get("/$z/look?k=a") } 1 .. 9), 9,
           "lua: $name: $z: a look takes nothing");
        is(passed(429, map { $n->get("/$z/?k=a") } 1 .. 5), 3,
           "lua: $name: $z: all were there");
        is($n->get("/$z/look?k=a")->status, 429,
           "lua: $name: $z: a look is refused as the next one would be");
    }
}

{
    my $n = page('lua_resty', 'conn 200 wait=500ms queue=100'
                 => 'conn 2 wait=20s queue=1');
    my @all = $n->parallel(5, '/slow');

    is(passed(503, @all), 3, 'lua: two run, one waits for a place');
}


# redis-cell: what it would answer, one place in six minutes and five more

for my $store ('', 'coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }') {
    my $name = $store ? 'redis' : 'memory';
    my $n = $t->node(name => "cell_$name", http => <<"EOF")->start;
        $store
        coord_limit_req_zone \$arg_k zone=z:1m rate=10r/h
                             algorithm=token_bucket;
        server {
            listen 127.0.0.1:%%PORT%%;
            add_header X-Limit \$coord_limit_req_limit always;
            add_header X-Left \$coord_limit_req_remaining always;
            add_header X-Reset \$coord_limit_req_reset always;
            location / { coord_limit_req zone=z burst=5 cost=\$arg_n;
                         empty_gif; }
        }
EOF

    # quantity => status, remaining, reset rounded to a place, retry after

    my @cell = ([7, '429 6 0 -'], [0, '200 6 0 -'], [2, '200 4 2 -'],
                [1, '200 3 3 -'], [4, '429 3 1 1'], [0, '200 3 3 -'],
                [3, '200 0 6 -'], [1, '429 0 1 1'], [2, '429 0 2 2'],
                [0, '200 0 6 -']);

    for my $i (0 .. $#cell) {
        my ($cost, $want) = @{$cell[$i]};
        my $r = $n->get("/?k=a&n=$cost");
        my $after = $r->header('Retry-After');
        my $got = join ' ', $r->status, $r->header('X-Left'),
                            int($r->header('X-Reset') / 360 + 0.9),
                            defined $after ? int($after / 360 + 0.9) : '-';

        is($got, $want, "redis-cell: $name: step $i, a quantity of $cost");
        is($r->header('X-Limit'), 10, "redis-cell: $name: the count")
            if !$i;
    }
}


# stock: these lines and those without "coord_"

{
    my $n = page('stock', 'coord_limit_req  zone=one burst=5;'
                 => 'coord_limit_req  zone=one burst=5 nodelay; empty_gif;');

    is(passed(429, map { $n->get('/download/') } 1 .. 9), 6, 'stock: burst');
}

done_testing();
