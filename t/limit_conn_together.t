#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Requests of one turn of the event loop that ask for leases of one key travel
# as one transaction: they are granted in the order in which they came, as far
# as there is room, and each gives back its own lease.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP2;

my $t = Coord->new;
my $redis = $t->redis;
my $admin = $redis->connect;
my $fake = $t->fake_redis(upstream => $redis->{port});
my $origin = $t->origin;

my $n = $t->node(name => 'n', workers => 1, http => <<"EOF")->start;
    coord_store main { server redis://@{[$fake->addr]}; timeout 2s;
                       connect_timeout 2s; breaker failures=1000; }
    coord_limit_conn_zone \$arg_k zone=c:1m;
    coord_lock_zone \$arg_k zone=l:1m;
    add_header X-Conn \$coord_limit_conn_status always;
    add_header X-Current \$coord_limit_conn_current always;

    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% http2;
        location /held { coord_limit_conn c 5;
                         proxy_pass http://@{[$origin->addr]}; }
        location /more { coord_limit_conn c 7;
                         proxy_pass http://@{[$origin->addr]}; }
        location /plain { coord_limit_conn c 5; empty_gif; }
        location /dry { coord_limit_conn c 5; coord_limit_conn_dry_run on;
                        proxy_pass http://@{[$origin->addr]}; }
        location /closed { coord_limit_conn c 5 on_failure=closed;
                           empty_gif; }
        location /lock { coord_lock zone=l;
                         proxy_pass http://@{[$origin->addr]}; }
        location /none { return 204; }
    }
EOF

my @clients;

# a store that is still to be connected is asked by each

is($n->get('/plain?k=connect')->header('X-Conn'), 'PASSED', 'connected');


# in one turn, each of a client of its own; in what order they are found is the
# kernel's

sub begin {
    (my $worker, @clients) = $n->hold_crowd('/none', @_);

    return $worker;
}


sub asked {
    my ($k) = @_;

    return scalar grep { $_->[2] eq "coord:cc:c:{$k}" && $_->[3] eq 'NX' }
           $fake->commands('ZADD');
}


sub held { $admin->command('ZCARD', "coord:cc:c:{$_[0]}") }


# --- as many as there is room for, by one transaction ---

for my $p ('/held', '/dry') {
    my $k = substr($p, 1);
    my $worker = begin(("$p?k=$k&delay=1") x 20);
    my $before = asked($k);
    kill 'CONT', $worker;

    my @got = map { $_->response } @clients;
    my @in = grep { $_->header('X-Conn') eq 'PASSED' } @got;

    is(scalar(@in), 5, "$p: five of 20");
    is(join(' ', sort map { $_->header('X-Current') } @in), '1 2 3 4 5',
       "$p: each is told how many there are with it");
    is(scalar(grep { $_->header('X-Conn') =~ /^REJECTED/
                     && $_->header('X-Current') == 5 } @got), 15,
       "$p: the others are refused");
    is(asked($k) - $before, 1, "$p: by one command");
    ok($t->wait_for(sub { held($k) == 0 }, 5), "$p: all is given back");
}

is($origin->overlap('/held'), 5, 'five at a time');


# --- more than go into one command ---

{
    kill 'CONT', begin(('/held?k=many&delay=1') x 80);

    my @got = map { $_->response } @clients;

    is(scalar(grep { $_->status == 200 } @got), 5, 'many: exact');
    cmp_ok(asked('many'), '<=', 4, 'many: in ' . asked('many'));
    ok($t->wait_for(sub { held('many') == 0 }, 5), 'many: given back');
}


# --- other limits and other keys ---

{
    kill 'CONT', begin(map { ('/held?k=mixed&delay=1', '/more?k=mixed&delay=1',
                              '/held?k=other&delay=1') } 1 .. 8);

    my @got = map { [$_ % 3, $clients[$_]->response] } 0 .. $#clients;
    my @in = grep { $_->[1]->status == 200 } @got;

    is(scalar(grep { $_->[0] == 2 } @in), 5, 'another key has its own leases');
    cmp_ok(scalar(grep { $_->[0] == 0 } @in), '<=', 5, 'a smaller limit');
    is(scalar(grep { $_->[0] != 2 } @in), 7, 'one set for both');
    is(asked('mixed'), 2, 'a command for each limit');
    is(asked('other'), 1, 'and one for another key');
    ok($t->wait_for(sub { held('mixed') + held('other') == 0 }, 5),
       'all is given back');
}


# --- clients that leave before they are answered ---

{
    my $worker = begin(('/held?k=gone&delay=1') x 5);
    $_->close for @clients[1, 3];
    kill 'CONT', $worker;

    is($clients[$_]->response->status, 200, 'who stays passes') for 0, 2, 4;
    ok($t->wait_for(sub { held('gone') == 0 }, 5), 'nothing is left');
}


# --- leases that are over have places, until somebody asks ---

{
    $admin->command('ZADD', 'coord:cc:c:{dead}', map { ($_, "dead$_") } 1 .. 5);
    kill 'CONT', begin(('/held?k=dead&delay=1') x 8);

    my @got = map { $_->response->status } @clients;

    is(scalar(grep { $_ == 200 } @got), 5, 'their places are free');
    is(scalar(grep { $_ == 429 } @got), 3, 'and no more than those');
    is(asked('dead'), 2, 'all ask again, together');
    ok($t->wait_for(sub { held('dead') == 0 }, 5), 'all is given back');
}


# --- a lock is a lease of one ---

{
    kill 'CONT', begin(('/lock?k=x&delay=1') x 8);

    is(join(' ', sort map { $_->response->status } @clients),
       '200' . ' 423' x 7, 'one has the lock');
}


# --- a key that is no set, and a connection that ends ---

{
    $admin->command('SET', 'coord:cc:c:{bad}', 'x');
    kill 'CONT', begin(('/closed?k=bad') x 5);
    is(join(' ', map { $_->response->status } @clients),
       '503 503 503 503 503', 'an error is one for each');

    $fake->fault(action => 'close', cmd => 'ZADD', times => 1);
    kill 'CONT', begin(('/closed?k=cut', '/plain?k=cut') x 4);
    is(join(' ', map { $_->response->status } @clients),
       join(' ', ('503 200') x 4), 'no answer is none for each');
    $n->allow(qr/WRONGTYPE|no answer|going by on_failure|connection|lost/);

    ok($t->wait_for(sub { held('cut') == 0 }, 5), 'nothing is left of it');
}


# --- streams of one connection of HTTP/2, in their order ---

{
    ok($t->wait_for(sub { $n->get('/plain?k=h2')->header('X-Conn') eq 'PASSED' },
                    5), 'it is there again');

    my $h2 = Coord::HTTP2->new(port => $n->port(2));
    $h2->ended($h2->request('/none'));

    # what came before is given back

    ok($t->wait_for(sub { held('h2') == 0 }, 5),
       'nothing is left of it');

    my $before = asked('h2');

    my $worker = $n->hold_worker;
    my @ids = $h2->together(sub {
        return map { $h2->request('/held?k=h2&delay=1') } 1 .. 12;
    });
    kill 'CONT', $worker;

    my @got = map { $h2->ended($_)->{headers}{':status'} } @ids;
    is("@got", '200 ' x 5 . '429 429 429 429 429 429 429',
       'HTTP/2: the first five');
    is(asked('h2') - $before, 1, 'HTTP/2: one command');
}

done_testing();
