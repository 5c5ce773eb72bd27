#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_idempotency: what a first execution costs, in round trips and in memory
# of Redis.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP;
use Coord::Util qw(slurp);

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;

my $answer = 'a' x 1024;
my $origin = $t->node(name => 'origin', plain => 1, http => <<"EOC")->start;
    keepalive_requests 1000000;
    server { listen 127.0.0.1:%%PORT%%;
             location / { return 201 "$answer"; } }
EOC
$t->set(TO => '127.0.0.1:' . $origin->port);

my $n = $t->node(name => 'n', workers => 1, http => <<'EOC')->start;
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_idempotency_scope off;
    keepalive_requests 1000000;
    access_log off;

    upstream origin { server %%TO%%; keepalive 4; }
    server {
        listen 127.0.0.1:%%PORT%%;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        location /once { coord_idempotency on; proxy_pass http://origin; }
    }
EOC

my $serial = 0;
my $body = 'b' x 1024;


# so many requests, 25 at a time

sub run {
    my ($count) = @_;

    my @c = map { $n->connect } 1 .. 25;
    my @requests = map {
        Coord::HTTP::format(method => 'POST', path => '/once', body => $body,
            keepalive => 1, headers => {
            'Idempotency-Key' => 'k' . ++$serial }) } 1 .. $count;

    while (my @some = splice(@requests, 0, scalar @c)) {
        $c[$_]->send($some[$_]) for 0 .. $#some;

        for my $c (@c[0 .. $#some]) {
            my $got = $c->response(method => 'POST', timeout => 10);
            die 'status ' . $got->status if $got->status != 201;
        }
    }

    $_->close for @c;
}

my $watch = $redis->watch;


run(200);

my $count = 500;
$watch->seen;
run($count);
cmp_ok($watch->calls('echo'), '<=', 2 * $count + 20,
       'a claim, and a result that nobody waits for');

# what docs/idempotency.md says

$r->command('FLUSHALL');
is($n->post('/once', $body, headers => { 'Idempotency-Key' => 'one' })->status,
   201, 'one result');
$t->wait_for(sub { $r->command('DBSIZE') == 2 }, 10);

my $bytes = 0;

for my $key (@{$r->command('KEYS', '*')}) {
    my $size = $r->command('MEMORY', 'USAGE', $key);
    note(($key =~ /:r$/ ? 'record' : 'mark') . ": $size bytes");
    $bytes += $size;
}

my $docs = slurp("$FindBin::Bin/../docs/idempotency.md");
my ($said) = $docs =~ /a body of 1024 bytes takes (\d+) bytes/;
cmp_ok($bytes, '<=', ($said || 0) * 1.15,
       "$bytes bytes for a result of 1 KiB, as documented");
cmp_ok($bytes, '>=', ($said || 0) * 0.85, 'and not less');

done_testing();
