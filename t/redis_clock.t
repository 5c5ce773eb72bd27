#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# The clock of a server, as a worker knows it: a first sample that took long is
# made better before anybody asks, and what samples leave open is told by the
# clock of the machine.

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
    coord_limit_req_zone \$arg_k zone=five:1m rate=1r/h;
    server { listen 127.0.0.1:%%PORT%%;
             location / { coord_limit_req zone=two on_failure=closed;
                          empty_gif; }
             location /five { coord_limit_req zone=five burst=4 nodelay
                                              on_failure=closed;
                              empty_gif; } }
EOC
}

my ($quick, $slow, $late, $ahead, $behind)
    = map { $t->fake_redis(upstream => $redis->{port}) } 1 .. 5;

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


# a worker that never gets a good sample: its clock is that of the others, who
# have filled a bucket a moment ago

$late->fault(action => 'delay', cmd => 'TIME', delay => 2, times => 0);
my $three = node('three', $late);

is($three->get('/?k=warm')->status, 200, 'one whose samples take long');
is(join(' ', map { $one->get('/five?k=a')->status } 1 .. 4),
   '200 200 200 200', 'four of five places');
is(join(' ', map { $three->get('/five?k=a')->status } 1, 2), '200 429',
   'and the fifth, at once');


# a server whose clock is another than that of the machine is believed

for (['ahead', $ahead, 3600], ['behind', $behind, -3600]) {
    my ($name, $fake, $by) = @$_;

    my $then = time + $by;
    $fake->fault(action => 'replace', cmd => 'TIME', times => 0,
                 data => "*2\r\n\$10\r\n$then\r\n\$1\r\n0\r\n");
    my $node = node($name, $fake);

    is($node->get("/five?k=$name")->status, 200, "$name: a place");

    # a TAT counts from 2020, and an hour is taken

    my $tat = $redis->connect->command('BITFIELD', "coord:rl:five:{$name}",
                                       'GET', 'u63', 0)->[0] & (2 ** 51 - 1);

    cmp_ok(abs($tat / 1e6 + 1577836800 - 3600 - $then), '<', 1800,
           "$name: its time");
}

done_testing();
