#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_limit_conn before grpc_pass: a stream keeps its place for as long as
# it lasts, whoever sends, and gives it back at its end.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP2;
use Time::HiRes qw(time);

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;

# a message of gRPC: not compressed, its length, its bytes

sub message { pack('C N/a', 0, $_[0]) }

my @messages = map { message("message $_") } 1 .. 12;
my @type = ('Content-Type', 'application/grpc');

my $origin = $t->origin(routes => {
    '/chat.Chat/Stream' => {
        headers => [@type],
        parts => [[0, $messages[0]], map { [0.3, $_] } @messages[1 .. 11]],
    },
    '/chat.Chat/Endless' => {
        headers => [@type], parts => [[0, $messages[0]], [60, $messages[1]]],
    },
    '/chat.Chat/Upload' => { headers => [@type], body => $messages[0] },
});

# a server of gRPC: HTTP/2 with the status in a trailer

my $server = $t->node(name => 'grpc', plain => 1, http => <<'EOF')->start;
    server {
        listen 127.0.0.1:%%PORT%% http2;
        location / {
            add_trailer grpc-status 0;
            proxy_buffering off;
            proxy_read_timeout 100s;
            proxy_pass http://%%ORIGIN%%;
        }
    }
EOF

$t->set(GRPC => $server->port);

my $http = <<'EOF';
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_limit_conn_zone $http_x_key zone=one:1m lease=1s;

    server {
        listen 127.0.0.1:%%PORT%% http2;
        grpc_read_timeout 100s;
        location / { coord_limit_conn one 1;
                     grpc_pass grpc://127.0.0.1:%%GRPC%%; }
    }
EOF

my $n1 = $t->node(name => 'a', workers => 2, http => $http)->start;
my $n2 = $t->node(name => 'b', workers => 2, http => $http)->start;

sub members { @{$r->command('ZRANGE', "coord:cc:one:{$_[0]}", 0, -1,
                            'WITHSCORES')} }

sub call {
    my ($node, $method, $key, %opt) = @_;
    my $h2 = Coord::HTTP2->new(port => $node->port);
    my $id = $h2->request("/chat.Chat/$method", method => 'POST',
                          body => message('hello'), %opt,
                          headers => ['content-type', 'application/grpc',
                                      te => 'trailers', 'x-key' => $key]);
    return ($h2, $id);
}

sub refused {
    my ($key, $name) = @_;
    my ($h2, $id) = call($n2, 'Stream', $key);
    $h2->wait(sub { $h2->stream($id)->{status} }, 10);
    is($h2->stream($id)->{status}, 429, $name);
}

sub free_soon {
    my ($key, $name) = @_;
    ok($t->wait_for(sub { !members($key) }, 5), "free: $name");
}


# the server sends for longer than the lease

my ($h2, $id) = call($n1, 'Stream', 's');
my $s = $h2->stream($id);
ok($h2->wait(sub { length $s->{body} }, 10), 'the first message');
is($s->{status}, 200, 'status');

my $start = time;
my (%ids, %scores);
my ($most, $missing) = (0, 0);

ok($h2->wait(sub {
    my @m = members('s');
    $missing++ if !@m && !$s->{ended};
    $most = @m / 2 if @m / 2 > $most;
    while (my ($lease, $score) = splice(@m, 0, 2)) {
        $ids{$lease} = $scores{$score} = 1;
    }
    return time - $start > 2.5;
}, 10), 'longer than twice the lease');

is($most, 1, 'one place');
is(scalar keys %ids, 1, 'always the same lease');
is($missing, 0, 'it never ran out');
my @scores = sort { $a <=> $b } keys %scores;
cmp_ok($#scores, '>=', 3, "it was renewed $#scores times");
cmp_ok($scores[-1] - $scores[0], '>', 1.5e6, 'and ends later each time');
is($s->{ended}, undef, 'the stream goes on');
refused('s', 'a second stream is refused on the other node');

ok($h2->ended($id, 20), 'the stream ends');
is($s->{body}, join('', @messages), 'all messages came');
is($s->{trailers}{'grpc-status'}, 0, 'with their status');
free_soon('s', 'a stream that has ended');
($h2, $id) = call($n2, 'Upload', 's');
$h2->ended($id, 10);
is($h2->stream($id)->{status}, 200, 'the next one passes');


# the client does

($h2, $id) = call($n1, 'Upload', 'u', open => 1);
ok($t->wait_for(sub { members('u') }, 10), 'held from the first message on');
$start = time;
$missing = 0;
$h2->wait(sub { $missing++ if !members('u'); time - $start > 1.8 }, 10);
is($missing, 0, 'a client that sends for longer keeps its place');
refused('u', 'and the only one');
$h2->data($id, message('bye'), 1);
ok($h2->ended($id, 10), 'its stream ends');
is($h2->stream($id)->{trailers}{'grpc-status'}, 0, 'well');
free_soon('u', 'what it sent has ended');
is(($origin->requests('/chat.Chat/Upload'))[-1]{body},
   message('hello') . message('bye'), 'and has come');


# a client that goes away in the middle of a stream

my %gone = (reset => 'RST_STREAM', close => 'the connection is closed');

for my $how (sort keys %gone) {
    ($h2, $id) = call($n1, 'Endless', $how);
    $s = $h2->stream($id);
    ok($h2->wait(sub { length $s->{body} }, 10), 'in the middle');
    refused($how, 'it has its place');
    my $aborted = $origin->aborted;
    $h2->$how($id);
    free_soon($how, $gone{$how});
    ok($t->wait_for(sub { $origin->aborted == $aborted + 1 }, 5),
       'the upstream is told');
}


# an upstream that goes away

($h2, $id) = call($n1, 'Endless', 'up');
$s = $h2->stream($id);
ok($h2->wait(sub { length $s->{body} }, 10), 'in the middle');
is(scalar members('up'), 2, 'it has its place');
$origin->drop_all(1);
ok($h2->ended($id, 10), 'the upstream ends the stream');
free_soon('up', 'the upstream is gone');

done_testing();
