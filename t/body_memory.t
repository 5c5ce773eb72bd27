#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A key, a scope or a fingerprint that holds the body of a request, or may, and
# a body of 100 MB, which lies in a file: what a worker needs for it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP;
use Coord::Util qw(slurp spew);

my $size = 100 << 20;

my $t = Coord->new;

my $origin = $t->origin(default => sub {
    my ($name) = $_[0]{path} =~ m!^/(\w+)!;

    # until the test says so
    select(undef, undef, undef, 0.01)
        while !-e $t->file("go$name$_[0]{headers}{'x-n'}[0]");

    return { body => 'done' };
});

my $n = $t->node(http => <<'EOT')->start;
    client_max_body_size 200m;
    client_body_buffer_size 16k;
    coord_idempotency_scope off;
    coord_limit_req_zone $order zone=orders:1m rate=100r/s;

    map $request_body $order { ~^order=(?<id>\w+) $id; }
    map $http_x_tenant $tenant { default $http_x_tenant; }

    proxy_pass_request_body off;
    proxy_set_header Content-Length "";

    server {
        listen 127.0.0.1:%%PORT%%;
        coord_idempotency on;
        add_header X-Status $coord_idempotency_status;

        location /none/ { proxy_pass http://%%ORIGIN%%; }
        location /tenant/ { coord_idempotency_scope $tenant;
                            proxy_pass http://%%ORIGIN%%; }
        location /key/ { coord_idempotency_key $order;
                         proxy_pass http://%%ORIGIN%%; }
        location /all/ { coord_idempotency_key $order;
                         coord_idempotency_scope $order;
                         coord_idempotency_fingerprint $order;
                         proxy_pass http://%%ORIGIN%%; }
        location /scope/ { coord_idempotency_scope $request_body;
                           proxy_pass http://%%ORIGIN%%; }
        location /text/ { coord_idempotency_scope $http_x_tenant:$request_body;
                          proxy_pass http://%%ORIGIN%%; }
        location /limit/ { coord_limit_req zone=orders after_body;
                           coord_idempotency off;
                           proxy_pass http://%%ORIGIN%%; }
        location /whole/ { coord_idempotency_key $request_body;
                           proxy_pass http://%%ORIGIN%%; }
    }
EOT

my ($pid) = $n->workers;

# memory that is the worker's own, kB; pages of a file are not

sub own { return (slurp("/proc/$pid/status") =~ /^RssAnon:\s+(\d+)/m)[0] }

my $body = 'order=abc&' . 'x' x ($size - 10);
my $kb = $size / 1024;

# nginx itself copies the value of a variable, and "map" once more

for my $case (['none', 0], ['tenant', 0], ['key', 2], ['all', 2],
              ['scope', 1], ['text', 1], ['limit', 2])
{
    my ($name, $copies) = @$case;
    my $before = own();
    my $most = 0;

    for my $try (1, 2) {
        my $c = $n->connect;
        $c->send(Coord::HTTP::format(
            method => 'POST', path => "/$name/", body => $body, headers => {
                'Idempotency-Key' => "k$name", 'X-Tenant' => 'a',
                'X-N' => $try }));

        if ($try == 1) {
            $t->wait_for(sub { scalar $origin->requests("/$name/") }, 60);
            $most = own() - $before;
        }

        spew($t->file("go$name$try"), '');

        my $r = $c->response(method => 'POST', timeout => 60);

        is($r->body, 'done', "$name, $try: " . $r->status);
        is($r->header('Idempotency-Replayed'), $try == 2 ? 'true' : undef,
           "$name, $try") if $name ne 'limit';
        $c->close;
    }

    cmp_ok($most, '<', $kb * $copies + 8192, "$name: $most kB of its own");

  SKIP: {
        skip 'ASan keeps for a while what is freed', 1 if $ENV{TEST_SANITIZE};

        ok($t->wait_for(sub { own() - $before < 8192 }, 10),
           "$name: all given back");
    }
}

my $r = $n->post('/whole/', $body, headers => { 'X-N' => 1 }, timeout => 60);
is($r->status, 400, 'a key is not that long');

done_testing();
