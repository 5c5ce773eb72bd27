#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# The clock of a server, as a worker knows it: a first sample that took long is
# made better before anybody asks.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
my $redis = $t->redis;

sub node {
    my ($name, $fake) = @_;

    return $t->node(name => $name, workers => 1, http => <<"EOC")->start;
    coord_store main { server redis://@{[ $fake->addr ]}; timeout 5s;
                       connect_timeout 10s; }
    coord_limit_req_zone \$arg_k zone=two:1m rate=2r/h algorithm=fixed_window;
    server { listen 127.0.0.1:%%PORT%%;
             location / { coord_limit_req zone=two on_failure=closed;
                          empty_gif; } }
EOC
}

my ($quick, $slow) = map { $t->fake_redis(upstream => $redis->{port}) } 1 .. 2;

# one connection decides, and one listens

$slow->fault(action => 'delay', cmd => 'TIME', delay => 0.4, times => 2);

my $one = node('one', $quick);
my $two = node('two', $slow);

# a handshake has no ECHO

ok($t->wait_for(sub { scalar(my @echo = $slow->commands('ECHO')) }, 30),
   'a handshake that took long: the time is asked for again');

is($two->get('/?k=a')->status, 200, 'a request');
is($one->get('/?k=a')->status, 200, 'on another node as well');
is($_->get('/?k=a')->status, 429, 'and none too many') for $two, $one;
unlike($two->log, qr/coord redis/, 'on the same connection');

done_testing();
