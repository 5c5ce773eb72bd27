#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# What is large or slow does not stand in front of decisions: it travels by a
# connection of its own, whose trouble is its own.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Util qw(slurp);

use JSON::PP;

my $t = Coord->new;
my $redis = $t->redis;


# a list that takes its time, and one that never comes

my $fake = $t->fake_redis(upstream => $redis->{port});

my $m = $t->node(name => 'm', http => <<'EOF')->start;
    coord_store main { server %%FAKE%%; timeout 3s; connect_timeout 5s; }
    coord_limit_req_zone $arg_k zone=one rate=100000r/s;
    coord_session_zone $arg_s zone=ses;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Status $coord_limit_req_status;
        location = /limit { coord_limit_req zone=one; empty_gif; }
        location = /session { coord_session zone=ses user=$arg_u; empty_gif; }
        location = /status { coord_status; }
        location /api/ { coord_api; }
    }
EOF

ok($t->wait_for(sub { ($m->get('/limit?k=' . rand)->header('X-Status') || '')
                      eq 'PASSED' }, 10), 'connected');
$m->get("/session?s=$_&u=alice") for 1 .. 5;

my %conn = map { $_->[0] => 1 } $fake->commands('BITFIELD');
is(scalar keys %conn, 1, 'decisions have one connection');

my $list = decode_json($m->get('/api/users/ses/alice')->body);
is($list->{count}, 5, 'a list') or diag explain $list;
my ($other) = map { $_->[0] } grep { "@$_" =~ /WITHSCORES/ }
              $fake->commands('ZRANGE');
ok($other && !$conn{$other}, 'lists have another one');

for my $fault ({ action => 'delay', delay => 1 }, { action => 'stall' }) {
    $fake->fault(%$fault, cmd => 'EXEC', conn => $other);

    my @r = $t->parallel([$m->req('/api/users/ses/alice'),
                          map { $m->req("/limit?k=$_") } 1 .. 40],
                         timeout => 20);
    my $api = shift @r;

    is(scalar(grep { $_->header('X-Status') eq 'PASSED' } @r), 40,
       "$fault->{action}: no decision waits");
    is($api->status, $fault->{action} eq 'stall' ? 503 : 200,
       "$fault->{action}: the list");
}


# a lane that is closed again and again switches off nothing else

$fake->fault(action => 'close', cmd => 'EXEC', times => 0, conn => $_)
    for $other .. $other + 20;

$m->get('/api/users/ses/alice') for 1 .. 12;

my ($store) = @{decode_json($m->get('/status?format=json')->body)->{stores}};
is($store->{breaker_open}, 0, 'the breaker of decisions is closed');
is($store->{up}, 1, 'the store is up');
is($store->{reconnects}, 0, 'it was not reconnected');
is($store->{latency}{count}, $store->{latency}{buckets}[-1]{count},
   'the latency is that of decisions alone, and so is their number');
is($m->get('/limit?k=x')->header('X-Status'), 'PASSED', 'and decides');

$fake->clear;
ok($t->wait_for(sub { $m->get('/api/users/ses/alice')->status == 200 }, 20),
   'the lane comes back');


# large records: eight clients repeat a key, others ask for limits

my $size = 1024 * 1024;

my $origin = $t->origin(routes => { '/big' => { size => $size },
                                    '/small' => { body => 'small' } });

my $http = <<'EOF';
    log_format s '$uri $coord_limit_req_status $coord_idempotency_status';
    access_log %%NODEDIR%%/status.log s;
    coord_limit_req_zone $arg_k zone=one:1m rate=100000r/s;
    coord_idempotency_scope off;
    coord_idempotency_max_response 2m;

    server {
        listen 127.0.0.1:%%PORT%%;
        location = /limit { coord_limit_req zone=one; empty_gif; }
        location / { coord_idempotency on; proxy_pass http://%%ORIGIN%%; }
    }
EOF

my $n = $t->node(name => 'n', http =>
    "coord_store main { server %%REDIS%%; timeout 100ms; }\n$http")->start;

sub key { return { 'Idempotency-Key' => $_[0] } }

sub seen {
    my ($what) = @_;

    my $text = slurp($n->file('status.log'));
    my $count = () = $text =~ /$what/g;

    return $count;
}

ok($t->wait_for(sub { $n->get('/limit?k=' . rand);
                      seen(qr/PASSED/) }, 10), 'connected');


my $first = $n->post('/big', 'body', headers => key('k'), timeout => 20);
is(length $first->body, $size, 'a large response');
ok($t->wait_for(sub {
    my $r = $n->post('/big', 'body', headers => key('k'), timeout => 20);
    return $r->header('Idempotency-Replayed');
}, 20), 'is stored');

my ($before, $bypassed, $limits, @replays, @mismatches);

sub experiment {
    my @requests;

    $before = $origin->count('/big');
    $bypassed = seen(qr/limit BYPASSED/);
    my $passed = seen(qr/limit PASSED/);

    $limits = 0;
    @replays = ();
    @mismatches = ();

    for my $round (1 .. 6) {
        @requests = ();

        for my $i (1 .. 40) {
            push @requests, $n->req("/limit?k=$round-$i");

            if ($i % 5 == 0) {
                push @requests, $n->req('/big', method => 'POST',
                                        body => $i % 10 ? 'body' : 'wrong',
                                        headers => key('k'));
            }
        }

        my @r = $t->parallel(\@requests, timeout => 60);

        for my $i (0 .. $#r) {
            my $q = $requests[$i];

            if ($q->{path} =~ /limit/) {
                $limits += $r[$i]->status == 200;

            } elsif ($q->{body} eq 'body') {
                push @replays, $r[$i];

            } else {
                push @mismatches, $r[$i];
            }
        }
    }

    $t->wait_for(sub { seen(qr/limit PASSED/) - $passed
                       + seen(qr/limit BYPASSED/) - $bypassed >= 240 }, 10);

    $bypassed = seen(qr/limit BYPASSED/) - $bypassed;
}

# a busy machine is slower than the store's time limit now and then: a limit
# passes, a repetition whose record is late twice is told 503

for (1 .. 5) {
    experiment();
    last if !$bypassed && !grep { $_->status == 503 } @replays;
}

is($limits, 240, 'limits are asked meanwhile');
is($bypassed, 0, 'none without a decision');
is(scalar(grep { $_->status == 200 && length $_->body == $size } @replays),
   scalar @replays, 'every repetition is replayed whole');
is(scalar(grep { $_->status == 422 } @mismatches), scalar @mismatches,
   'another body is refused');
is($origin->count('/big'), $before, 'nothing ran twice');

done_testing();
