#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Large records and slow ones do not stand in front of decisions: they travel
# by a connection of their own, whose trouble is its own.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Util qw(slurp);

my $t = Coord->new;
my $redis = $t->redis;
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


# the experiment: eight clients repeat a key, others ask for limits

my $first = $n->post('/big', 'body', headers => key('k'), timeout => 20);
is(length $first->body, $size, 'a large response');
ok($t->wait_for(sub {
    my $r = $n->post('/big', 'body', headers => key('k'), timeout => 20);
    return $r->header('Idempotency-Replayed');
}, 20), 'is stored');

my $before = $origin->count('/big');
my $bypassed = seen(qr/limit BYPASSED/);
my (@replays, @mismatches, $limits);

for my $round (1 .. 6) {
    my @requests;

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

is($limits, 240, 'limits are asked meanwhile');
ok($t->wait_for(sub { seen(qr/limit PASSED/) + seen(qr/limit BYPASSED/)
                      > 240 }, 10), 'all are logged');
is(seen(qr/limit BYPASSED/) - $bypassed, 0, 'none without a decision');
is(scalar(grep { $_->status == 200 && length $_->body == $size } @replays),
   scalar @replays, 'every repetition is replayed whole');
is(scalar(grep { $_->status == 422 } @mismatches), scalar @mismatches,
   'another body is refused');
is($origin->count('/big'), $before, 'nothing ran twice');

done_testing();
