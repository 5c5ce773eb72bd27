#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# over=reject: a seat that a request may have taken is given back if it has not
# heard of it, and no one who sits there is unseated by that.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Time::HiRes qw(sleep);

my $t = Coord->new;
my $redis = $t->redis;
my $fake = $t->fake_redis(upstream => $redis->{port});

my $conf = <<'EOC';
    coord_store main {
        server %%STORE%%;
        timeout 1s;
        connect_timeout 5s;
        breaker failures=1000 cooldown=100ms;
    }
    coord_store slow { server %%STORE%%; timeout 30s; connect_timeout 30s; }
    coord_session_zone $arg_k zone=seat:1m;
    coord_session_zone $arg_k zone=slow:1m store=slow;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Status $coord_session_status always;

        location /seat {
            coord_session zone=seat user=$arg_u max_per_user=1 over=reject
                          on_failure=closed;
            empty_gif;
        }
        location /open {
            coord_session zone=seat user=$arg_u max_per_user=1 over=reject;
            empty_gif;
        }
        location /slow {
            coord_session zone=slow user=$arg_u max_per_user=1 over=reject;
            empty_gif;
        }
    }
EOC

my $a = $t->node(name => 'a', http => $conf,
                 vars => { STORE => "redis://127.0.0.1:" . $fake->port })
          ->start;
my $b = $t->node(name => 'b', http => $conf,
                 vars => { STORE => "redis://127.0.0.1:$redis->{port}" })
          ->start;

my @seat = (cmd => 'ZRANGESTORE');
my @write = (cmd => 'HSETNX');


# an answer that is late, or lost: another one of the user may sit

for my $path ('/seat', '/open') {
    my $refused = $path eq '/seat' ? '503 UNAVAILABLE' : '200 BYPASSED';

    for my $fault ([ action => 'delay', delay => 2 ],
                   [ action => 'close', offset => 0 ], [ action => 'stall' ])
    {
        my $user = "ann$path$fault->[1]";

        $fake->fault(@$fault, @seat);
        is(told($a, "$path?u=$user&k=$user-1"), $refused,
           "$path, $fault->[1]: no answer");
        ok($t->wait_for(sub { told($b, "$path?u=$user&k=$user-2")
                              eq '200 NEW' }, 10),
           "$path, $fault->[1]: the seat is free");
        ok($t->wait_for(sub { told($a, "$path?u=$user&k=$user-2")
                              eq '200 BOUND' }, 10),
           "$path, $fault->[1]: that one sits");
        is(told($a, "$path?u=$user&k=$user-1"), '403 NONE',
           "$path, $fault->[1]: the first does not");
    }
}


# a client that goes away meanwhile

{
    $fake->fault(action => 'hold', @seat);
    my $fired = $fake->fired;
    my $c = $a->connect;
    $c->send("GET /slow?u=bob&k=bob1 HTTP/1.1\r\nHost: x\r\n\r\n");
    ok($t->wait_for(sub { $fake->fired > $fired }, 5), 'gone: it waits');
    is(told($b, '/slow?u=bob&k=bob2'), '403 NONE', 'gone: it sits');
    $c->reset;
    ok($a->wait_log(qr/client prematurely closed/), 'gone: it is seen');
    is($fake->release, 1, 'gone: now it has its answer');

    my $last;
    $t->wait_for(sub {
        sleep 0.1;
        $last = told($b, '/slow?u=bob&k=bob2');
        return $last ne '403 NONE' }, 15);
    is($last, '200 NEW', 'gone: the seat is free');
}


# the session is given its seat on another node at the same time: it stays

{
    $fake->fault(action => 'delay', delay => 2, @seat);
    my $fired = $fake->fired;
    my $c = $a->connect;
    $c->send("GET /seat?u=cat&k=cat HTTP/1.1\r\nHost: x\r\n\r\n");
    ok($t->wait_for(sub { $fake->fired > $fired }, 5), 'both: one waits');
    is(told($b, '/seat?u=cat&k=cat'), '200 NEW', 'both: the other sits');
    is($c->response->status, 503, 'both: the first has no answer');

    my @as = map { sleep 0.2; told($b, '/seat?u=cat&k=cat') } 1 .. 10;
    is(join(' ', grep { $_ ne '200 BOUND' } @as), '', 'both: which stays');
}


# it has its seat, and is not told that it is bound: it is not ended by that

for my $fault ([ action => 'delay', delay => 2 ],
               [ action => 'close', offset => 0 ])
{
    my $user = "dan$fault->[1]";

    $fake->fault(@$fault, @write);
    is(told($a, "/seat?u=$user&k=$user"), '503 UNAVAILABLE',
       "bind, $fault->[1]: no answer");

    my @as = map { sleep 0.2; told($b, "/seat?u=$user&k=$user") } 1 .. 10;
    is(join(' ', grep { !/^200 (?:NEW|BOUND)$/ } @as), '',
       "bind, $fault->[1]: it comes again");
    is(told($b, "/seat?u=$user&k=$user-o"), '403 NONE',
       "bind, $fault->[1]: and sits");
}

$_->allow(qr/coord store|session unavailable/) for $a, $b;

done_testing();


sub told {
    my ($node, $path) = @_;

    my $r = $node->get($path);

    return $r->status . ' ' . ($r->header('X-Status') // '');
}
