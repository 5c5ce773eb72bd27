#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A zone of a memory store that is full: leases refuse, as limit_conn does whose
# zone is full; rates forget who was longest away, as limit_req does.  Both are
# logged with the size to set, at most once a second.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use JSON::PP qw(decode_json);

my $t = Coord->new;
my $origin = $t->origin(routes => { '/slow' => { delay => 60 } });

my $n = $t->node(name => 'n', http => <<'EOF2')->start;
    coord_limit_conn_zone $arg_k zone=conn:32k;
    coord_lock_zone $arg_k zone=lock:32k;
    coord_limit_req_zone $arg_k zone=req:32k rate=1r/h;
    coord_limit_req_zone $arg_k zone=fast:32k rate=1000r/s;

    server {
        listen 127.0.0.1:%%PORT%%;

        location /slow {
            coord_limit_conn conn 1; proxy_pass http://%%ORIGIN%%;
        }
        location /conn { coord_limit_conn conn 1; empty_gif; }
        location /dry { coord_limit_conn conn 1; coord_limit_conn_dry_run on;
                        empty_gif; }
        location /req { coord_limit_req zone=req; empty_gif; }
        location /fast { coord_limit_req zone=fast; empty_gif; }
        location = /status { coord_status; }
    }
EOF2

my @held;

for my $i (1 .. 400) {
    last if $n->get("/conn?k=x$i")->status != 200;

    my $c = $n->connect;
    my $seen = $origin->count('/slow');

    $c->send("GET /slow?k=$i HTTP/1.1\r\nHost: a\r\n\r\n");
    $t->wait_for(sub { $origin->count('/slow') > $seen }, 10);
    push @held, $c;
}

cmp_ok(scalar @held, '>', 20, 'many have a place');
is($n->get('/conn?k=new')->status, 429, 'without room: refused');
is($n->get('/conn?k=1')->status, 429, 'who is known is counted');
is($n->get('/dry?k=new')->status, 200, 'but not in dry run');
ok($n->wait_log(qr/limiting connections by zone "conn", .* reason: full/, 5),
   'says why');
ok($n->wait_log(qr/\[error\].*coord zone "conn" is full, there is no room/, 5),
   'and that it is full');
ok($n->wait_log(qr/zone "conn" is full, .* a size of 64k, it has 32k/, 5),
   'and what to do');

my $json = decode_json($n->get('/status')->body);
my ($store) = grep { $_->{name} eq 'local' } @{ $json->{stores} };
cmp_ok($store->{operations}{full}, '>=', 3, 'counted');

$_->close for @held;
ok($t->wait_for(sub { $n->get('/conn?k=new')->status == 200 }, 10),
   'room again');

# rates

$n->get("/req?k=$_") for 1 .. 400;
is($n->get('/req?k=400')->status, 429, 'the last one is known');
is($n->get('/req?k=1')->status, 200, 'the first one is forgotten');

my @lines = $n->log_lines(qr/\[warn\].*zone "req" is full, a key that was in/);
cmp_ok(scalar @lines, '>=', 1, 'logged');

my %second;
$second{(split / /, $_)[1]}++ for @lines;
is(scalar(grep { $_ > 2 } values %second), 0, 'not for each of them');

# a bucket that has drained is remembered while there is room, and no loss

is(scalar(grep { $n->get("/fast?k=$_")->status != 200 } 1 .. 400), 0,
   'buckets that drain at once');
my ($fast) = grep { $_->{zone} eq 'fast' }
             @{ decode_json($n->get('/status')->body)->{zones} };
is($fast->{evictions}, 0, 'make room without a loss');
is(scalar $n->log_lines(qr/zone "fast" is full/), 0, 'nor is that logged');

done_testing();
