#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Streams of one HTTP/2 connection: each has a place of its own, and the end of
# one is not the end of others.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP2;
use Coord::Util qw(slurp);
use Time::HiRes qw(sleep);

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;
my $origin = $t->origin(routes => {
    (map { ("/$_" => { parts => [[0, 'begin '], [30, 'end']] },
            "/slow$_" => { delay => 30, body => 'slow' }) } qw(conn lock)),
    '/endconn' => { parts => [[0, 'begin '], [6, 'end']] },
});

# a place of many with $arg_k, a place or lock of its own with $arg_j

my $n = $t->node(name => 'n', http => <<'EOF')->start;
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_limit_conn_zone $arg_k zone=all:1m lease=10s;
    coord_limit_conn_zone $arg_j zone=own:1m lease=10s;
    coord_lock_zone $arg_j zone=own:1m lease=10s;
    log_format c '$arg_k $arg_j $status';

    server {
        listen 127.0.0.1:%%PORT%% http2;
        access_log %%NODEDIR%%/c.log c;
        proxy_buffering off;
        proxy_read_timeout 100s;

        location ~ ^/(slow|end)?conn { coord_limit_conn all 5;
                                   coord_limit_conn own 1;
                                   proxy_pass http://%%ORIGIN%%; }
        location ~ ^/(slow)?lock { coord_limit_conn all 5;
                                   coord_lock zone=own;
                                   proxy_pass http://%%ORIGIN%%; }
        location = /wait { coord_limit_conn all 5 wait=30s; empty_gif; }
        location = /try { coord_limit_conn all 5; empty_gif; }
    }
EOF

my %type = (conn => 'cc', lock => 'lk');

sub count { $r->command('ZCARD', $_[0]) }
sub all { count("coord:cc:all:{$_[0]}") }
sub line { count("coord:cc:all:{$_[0]}:w") }

# which of five streams have what is theirs alone

sub own {
    my ($what, $key) = @_;
    return join ' ', grep { count("coord:$type{$what}:own:{$key$_}") } 1 .. 5;
}

sub soon {
    my ($code, $want, $name) = @_;
    my $got;
    $t->wait_for(sub { ($got = $code->()) eq $want }, 10);
    is($got, $want, $name);
}

sub status {
    my ($h2, $path) = @_;
    my $id = $h2->request($path);
    $h2->ended($id, 10);
    return $h2->stream($id)->{status};
}


# one of five is reset, the others go on to their end, at the end of this file

my $end = Coord::HTTP2->new(port => $n->port);
my @end = map { $end->request("/endconn?k=e&j=e$_") } 1 .. 5;
ok($end->wait(sub { 5 == grep { length $end->stream($_)->{body} } @end }, 10),
   'five responses have begun');
$end->reset($end[2]);
$end->stream($end[2])->{ended} = 1;
soon(sub { own('conn', 'e') }, '1 2 4 5', 'one is reset');


# one of five is reset: before its response, in it, as the first and the last

for my $what (qw(conn lock slowconn slowlock)) {
    my $k = $what;
    my $type = $what =~ /lock/ ? 'lock' : 'conn';
    my $h2 = Coord::HTTP2->new(port => $n->port);
    my $other = Coord::HTTP2->new(port => $n->port);
    my $count = $origin->count("/$what");
    my @id = map { $h2->request("/$what?k=$k&j=$k$_") } 1 .. 5;

    soon(sub { all($k) }, 5, "$what: five streams of one connection");
    soon(sub { own($type, $k) }, '1 2 3 4 5', 'each has its own');
    soon(sub { $origin->count("/$what") }, $count + 5, 'all run');
    is(status($other, "/try?k=$k"), 429, 'no sixth');

    if ($what !~ /slow/) {
        $h2->wait(sub { 5 == grep { length $h2->stream($_)->{body} } @id }, 10);
    }

    my $aborted = $origin->aborted;
    $h2->reset($id[2]);

    soon(sub { all($k) }, 4, 'RST_STREAM of the third');
    is(own($type, $k), '1 2 4 5', 'gives back what it had');
    soon(sub { $origin->aborted }, $aborted + 1, 'and ends it');
    is(status($other, "/try?k=$k"), 200, 'room for one');

    $h2->reset($id[0], 2);
    $h2->reset($id[4], 2);
    soon(sub { all($k) }, 2, 'the first and the last');
    is(own($type, $k), '2 4', 'nobody else');

    sleep 0.5;
    $h2->wait(sub {}, 0.1);
    is(scalar(grep { $h2->stream($_)->{ended} } @id[1, 3]), 0,
       'the others go on');

    # of the same connection, which is as good as before

    is(status($h2, "/try?k=$k"), 200, 'a new stream');
    $h2->close;
    soon(sub { all($k) }, 0, 'the connection ends, and all of it');
    is(own($type, $k), '', 'all');

    my $status = $what =~ /slow/ ? 499 : 200;
    soon(sub { my $log = slurp($n->file('c.log'));
               scalar(() = $log =~ /^$k $k\d $status$/mg) }, 5,
         "five have ended with $status");
}


# those who wait in line

my $hold = Coord::HTTP2->new(port => $n->port);
$hold->request("/conn?k=w&j=h$_") for 1 .. 5;
soon(sub { all('w') }, 5, 'full');
my $wait = Coord::HTTP2->new(port => $n->port);
my @wait = map { $wait->request('/wait?k=w') } 1 .. 4;
soon(sub { line('w') }, 4, 'four streams wait');
$wait->reset($wait[1]);
soon(sub { line('w') }, 3, 'one is reset and leaves the line');
sleep 0.5;
is(line('w'), 3, 'alone');
$hold->close;
is($wait->ended($_, 10) && $wait->stream($_)->{status}, 200, 'passes')
    for @wait[0, 2, 3];
soon(sub { all('w') + line('w') }, 0, 'nothing is left');


# those of the beginning

$end->ended($_, 20) for @end;
is(join(', ', map { $end->stream($_)->{body} } @end),
   'begin end, begin end, begin , begin end, begin end',
   'streams that are not reset end well');
is(scalar(grep { $end->stream($_)->{status} == 200 } @end), 5, 'with 200');
soon(sub { all('e') }, 0, 'nothing is left');
is(own('conn', 'e'), '', 'at all');

done_testing();
