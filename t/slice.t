#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# The slice module of nginx: a response that is put together of parts, which
# subrequests bring, reaches its client as it is, and is not kept as one of them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP;

my $t = Coord->new;

plan(skip_all => 'this nginx has no slice module')
    if $t->conf_error(http => 'slice 1k; server { listen 127.0.0.1:%%PORT%%; }',
                      plain => 1);

my $whole = join '', map { sprintf '%08d', $_ } 1 .. 500_000;

my $origin = $t->origin(default => sub {
    my ($req) = @_;
    my ($size) = $req->{path} =~ /(\d+)$/ or return {};
    my @range = ($req->{headers}{range}[0] || '') =~ /(\d+)-(\d+)/;
    my @fields = ('Cache-Control' => 'max-age=60', ETag => '"a"');

    return { body => substr($whole, 0, $size), headers => \@fields } if !@range;

    $range[1] = $size - 1 if $range[1] >= $size;

    return { status => 206, headers => [ @fields,
                 'Content-Range' => "bytes $range[0]-$range[1]/$size" ],
             body => substr($whole, $range[0], $range[1] - $range[0] + 1) };
});

my $redis = $t->redis;
my $n = $t->node(http => <<'EOT')->start;
    coord_store main { server %%REDIS%%; timeout 2s; connect_timeout 5s; }
    coord_cache_zone zone=pages:8m;
    coord_idempotency_scope off;
    coord_idempotency_methods GET POST;
    coord_idempotency_on_unknown conflict;
    proxy_set_header Range $slice_range;
    proxy_http_version 1.1;
    slice 256k;

    server {
        listen 127.0.0.1:%%PORT%% sndbuf=4k;
        add_header X-Cache $coord_cache_status;

        location /plain/ { proxy_pass http://%%ORIGIN%%; }
        location /idem/ { coord_idempotency on;
                          coord_idempotency_max_response 8k;
                          proxy_pass http://%%ORIGIN%%; }
        location /large/ { coord_idempotency on;
                           coord_idempotency_max_response 8m;
                           proxy_pass http://%%ORIGIN%%; }
        location /cache/ { coord_cache $uri zone=pages max=8m;
                           proxy_pass http://%%ORIGIN%%; }
    }
EOT

my $k = 0;

# a client that does not read at first: buffers of nginx are in use

sub slow {
    my ($path, %headers) = @_;

    my $c = $n->connect;
    $c->send(Coord::HTTP::format(method => 'GET', path => $path, headers => {
        'Idempotency-Key' => 'k' . ++$k, %headers }));
    $t->rest(0.3);
    my $r = $c->response(method => 'GET', timeout => 30);
    $c->close;

    return $r;
}

for my $where ('plain', 'idem', 'large', 'cache') {
    for my $size (600_000, 3_500_000) {
        ok(slow("/$where/$size")->body eq substr($whole, 0, $size),
           "$where, $size bytes");

        my $r = slow("/$where/$size", Range => 'bytes=200000-560000');
        my $part = $r->status == 206 ? substr($whole, 200_000, 360_001)
                                     : substr($whole, 0, $size);

        ok($r->body eq $part, "$where, a part of $size bytes: " . $r->status);
        is($r->status, 206, "$where: a part of it") if $where =~ /plain|cache/;
    }
}

# of what is there no part is taken for the whole

my $c = $n->connect;
my @r = map { $c->request(path => $_, headers => {
    'If-None-Match' => '"a"' }) } '/cache/600001', '/plain/1000';
is($r[0]->status . ' ' . $r[0]->body, '304 ', 'who has it is sent none of it');
is($r[1]->status, 200, 'nor behind that');
$c->close;

for my $size (1000, 600_000) {
    my @h = (headers => { 'Idempotency-Key' => "s$size" });
    my $one = $size == 1000;
    my $path = "/large/$size";

    my @r = map { $n->get($path, @h) } 1, 2;

    is(join(' ', map { $_->status } @r), '200 200', "GET, $size bytes");
    is($r[1]->header('Idempotency-Replayed'), $one ? 'true' : undef,
       $one ? 'one part: replayed' : 'several parts: runs again');
    ok(!(grep { $_->body ne substr($whole, 0, $size) } @r), 'both are whole');

    @r = map { $n->post($path, 'x', headers => {
        'Idempotency-Key' => "p$size" }) } 1, 2;

    is(join(' ', map { $_->status } @r), $one ? '200 200' : '200 409',
       "POST, $size bytes: does not run again");

    $n->get("/cache/$size") for 1, 2;
    is($n->get("/cache/$size")->header('X-Cache'), $one ? 'HIT' : 'MISS',
       "$size bytes: " . ($one ? 'one part is cached' : 'several are not'));
}

my $idem = 'coord_idempotency on; coord_idempotency_scope off;';
my $good = $t->node(name => 'check', http => '');

for my $case (['', "slice 1m; $idem", 'GET POST', 1],
              ['', "slice 1m; $idem", 'POST', 0],
              ['slice 1m;', $idem, 'GET POST', 1],
              ['slice 1m;', "slice 0; $idem", 'GET POST', 0],
              ['', $idem, 'GET POST', 0])
{
    my ($outer, $line, $methods, $warns) = @$case;

    $good->conf(http => "$outer server { listen 127.0.0.1:%%PORT%%; location / "
                        . "{ $line coord_idempotency_methods $methods; } }");
    my (undef, $out) = $good->check;

    is($out =~ /of a response that "slice" puts together "coord_idempotency"/
       ? 1 : 0, $warns, "nginx -t: $outer $line with $methods");
}

done_testing();
