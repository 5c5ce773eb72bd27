#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_limit_conn wait=: the line of those who wait, over two nodes.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP2;
use Coord::Util qw(slurp);
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;
my $origin = $t->origin(routes => {
    '/work' => { delay => 0.2, body => 'work' },
    '/hold' => { delay => 60 },
    '/fifo' => { delay => 0.03, body => 'fifo' },
});

my $http = <<'EOF';
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_limit_conn_zone $arg_k zone=one:4m lease=20s;
    coord_limit_conn_zone $arg_j zone=two:1m lease=20s;
    coord_limit_conn_zone $arg_k zone=mem:4m lease=20s store=local;
    proxy_read_timeout 100s;
    log_format c '$uri $status $coord_limit_conn_status';

    server {
        listen 127.0.0.1:%%PORT%% backlog=4096;
        listen 127.0.0.1:%%PORT_2%% http2;
        access_log %%NODEDIR%%/c.log c;
        location = /work { coord_limit_conn one 3 wait=30s;
                           proxy_pass http://%%ORIGIN%%; }
        location = /memwork { coord_limit_conn mem 3 wait=30s;
                              proxy_pass http://%%ORIGIN%%/work; }
        location = /hold { coord_limit_conn one 1;
                           proxy_pass http://%%ORIGIN%%; }
        location = /fifo { coord_limit_conn one 1 wait=30s;
                           proxy_pass http://%%ORIGIN%%; }
        location = /wait { coord_limit_conn one 1 wait=200s queue=1000;
                           empty_gif; }
        location = /wait3 { coord_limit_conn one 1 wait=30s queue=3;
                            empty_gif; }
        location = /wait1s { coord_limit_conn one 1 wait=1s; empty_gif; }
        location = /memhold { coord_limit_conn mem 1;
                              proxy_pass http://%%ORIGIN%%/hold; }
        location = /memwait { coord_limit_conn mem 1 wait=30s; empty_gif; }
        location = /both { coord_limit_conn one 1 wait=30s;
                           coord_limit_conn two 1 wait=30s; empty_gif; }
        location = /holdtwo { coord_limit_conn two 1;
                              proxy_pass http://%%ORIGIN%%/hold; }
        location = /dry { coord_limit_conn one 1 wait=30s;
                          coord_limit_conn_dry_run on; empty_gif; }
    }
EOF

my %opt = (workers => 2, http => $http, events => 'worker_connections 4096;');
my $n1 = $t->node(name => 'a', %opt)->start;
my $n2 = $t->node(name => 'b', %opt)->start;

sub held { $r->command('ZCARD', "coord:cc:" . ($_[1] || 'one') . ":{$_[0]}") }
sub line { $r->command('ZCARD', "coord:cc:one:{$_[0]}:w") }

sub open_request {
    my ($node, $path) = @_;
    my $c = $node->connect;
    $c->send("GET $path HTTP/1.1\r\nHost: a\r\n\r\n");
    return $c;
}

sub soon {
    my ($code, $seconds, $name) = @_;
    ok($t->wait_for($code, $seconds), $name);
}


# configuration

sub conf {
    my ($param, $like) = @_;
    like($t->conf_error(http => "coord_limit_conn_zone \$uri zone=z; "
                        . "server { listen 127.0.0.1:%%PORT%%; "
                        . "coord_limit_conn z 1 $param; }"), $like, $param);
}

conf('wait=1s queue=10', qr/^$/);
conf('wait=0', qr/invalid time in "wait=0"/);
conf('wait=x', qr/invalid time in "wait=x"/);
conf('wait=2h', qr/invalid time in "wait=2h"/);
conf('queue=10', qr/"queue=" needs "wait="/);
conf('wait=1s queue=0', qr/invalid number in "queue=0"/);


# everybody gets a turn, never more than three at once

my @all = $t->parallel([map { ($_ % 2 ? $n1 : $n2)->req('/work?k=n') }
                        1 .. 60], timeout => 60);
is(scalar(grep { $_->status == 200 } @all), 60, 'all pass');
is($origin->overlap('/work'), 3, 'three at once, never four');
soon(sub { $r->command('EXISTS', map { "coord:cc:one:{n}$_" }
                       '', ':w', ':tmp', ':head') == 0 }, 3,
     'nothing is left');

$origin->reset_counters;
@all = $n1->parallel(30, '/memwork?k=n', timeout => 60);
is(scalar(grep { $_->status == 200 } @all), 30, 'in memory: all pass');
is($origin->overlap('/work'), 3, 'three at once');


# a wake-up from the other node

my @times;
for (1 .. 5) {
    $t->wait_for(sub { held('w') == 0 }, 5);
    my $hold = open_request($n1, '/hold?k=w');
    $t->wait_for(sub { held('w') == 1 }, 5);
    my $wait = open_request($n2, '/wait?k=w');
    soon(sub { line('w') == 1 }, 5, 'it waits');
    sleep 0.05;
    my $start = $t->ran;
    $hold->close;
    is($wait->response('GET', 10)->status, 200, 'then passes');
    push @times, $t->ran - $start;
}
@times = sort { $a <=> $b } @times;
cmp_ok($times[1], '<', 0.05, sprintf('within 50 ms (%.1f ms)',
                                     1000 * $times[1]));
soon(sub { line('w') == 0 }, 3, 'the line is empty');
ok((grep { $_ eq "/wait 200 DELAYED" } split /\n/, Coord::Util::slurp(
    $n2->file('c.log'))), 'DELAYED');
ok($n2->log_lines(qr/\[warn\] .*delaying request by zone "one"/), 'logged');


# who comes first, over both nodes

my $hold = open_request($n1, '/hold?k=f');
soon(sub { held('f') == 1 }, 5, 'held');
my @line;
for my $i (1 .. 12) {
    push @line, open_request($i % 2 ? $n1 : $n2, "/fifo?k=f&i=$i");
    $t->wait_for(sub { line('f') == $i }, 5);
}
is(line('f'), 12, 'twelve wait, alternately');
$hold->close;
is($_->response('GET', 20)->status, 200, 'passes') for @line;
is(join(' ', map { $_->{args}{i} } $origin->requests('/fifo')),
   join(' ', 1 .. 12), 'in the order they came');


# queue=

$hold = open_request($n1, '/hold?k=q');
soon(sub { held('q') == 1 }, 5, 'held');
@line = map { open_request($_ % 2 ? $n1 : $n2, '/wait3?k=q') } 1 .. 3;
soon(sub { line('q') == 3 }, 5, 'three wait');
is($n1->get('/wait3?k=q')->status, 429, 'the fourth is refused');
is($n2->get('/wait3?k=q')->status, 429, 'on the other node as well');
is(line('q'), 3, 'and leaves no trace');
ok($n2->wait_log(qr/limiting connections by .*, queue is full/, 3), 'logged');


# who leaves vanishes

$line[1]->close;
soon(sub { line('q') == 2 }, 5, 'a client that leaves, leaves the line');
undef @line;
soon(sub { line('q') == 0 }, 5, 'all of them');


# the end of patience

my $start = time;
my $refused = $n2->get('/wait1s?k=q');
is($refused->status, 429, 'waited too long');
cmp_ok(time - $start, '>=', 0.9, 'but as long as it may');
soon(sub { line('q') == 0 }, 3, 'and left the line');
ok($n2->wait_log(qr/limiting connections by .*, waited too long/, 3),
   'logged');
is($n1->get('/dry?k=q')->status, 200, 'dry run does not wait');
$hold->close;
soon(sub { held('q') == 0 }, 5, 'free');


# a message that is lost: somebody else frees the place, silently

$hold = open_request($n1, '/hold?k=l');
soon(sub { held('l') == 1 }, 5, 'held');
my $wait = open_request($n2, '/wait?k=l');
soon(sub { line('l') == 1 }, 5, 'one waits');
$r->command('DEL', 'coord:cc:one:{l}', 'coord:cc:one:{l}:w');
is($wait->response('GET', 5)->status, 200, 'it looks again by itself');
$hold->close;


# waiters of a node that was killed

$hold = open_request($n1, '/hold?k=d');
soon(sub { held('d') == 1 }, 5, 'held');
@line = map { open_request($n2, '/wait?k=d') } 1 .. 10;
soon(sub { line('d') == 10 }, 5, 'ten wait on one node');
kill 'KILL', $n2->pid, $n2->workers;
is(line('d'), 10, 'they are dead, and still in line');
$wait = open_request($n1, '/wait?k=d');
soon(sub { line('d') == 11 }, 5, 'another one behind them');
$hold->close;
$start = $t->ran;
is($wait->response('GET', 20)->status, 200, 'it passes all the same');
cmp_ok($t->ran - $start, '<', 3, sprintf('after %.1f s', $t->ran - $start));
soon(sub { line('d') == 0 }, 5, 'the dead are removed');
undef @line;
unlink $n2->file('nginx.pid');
$n2->start;


# several limits

my $one = open_request($n1, '/hold?k=s');
my $two = open_request($n1, '/holdtwo?j=s');
soon(sub { held('s') == 1 && held('s', 'two') == 1 }, 5, 'both are held');
$wait = open_request($n2, '/both?k=s&j=s');
soon(sub { line('s') == 1 }, 5, 'waits for the first');
$one->close;
soon(sub { $r->command('ZCARD', 'coord:cc:two:{s}:w') == 1 }, 5,
     'then for the second');
soon(sub { held('s') == 0 }, 5, 'holding nothing meanwhile');
$two->close;
is($wait->response('GET', 10)->status, 200, 'then passes');
soon(sub { held('s') == 0 && held('s', 'two') == 0 }, 5, 'and frees both');


# memory store, over two workers

my $begun = $origin->count('/hold');
$hold = open_request($n1, '/memhold?k=m');
soon(sub { $origin->count('/hold') > $begun }, 5, 'memory: one holds');
@line = map { open_request($n1, '/memwait?k=m') } 1 .. 20;
sleep 0.3;
is((grep { defined $_->read(0) } @line), 0, 'they wait');
$hold->close;
$start = $t->ran;
is($_->response('GET', 10)->status, 200, 'passes') for @line;
cmp_ok($t->ran - $start, '<', 5, 'soon');


# many who wait ask seldom, and no more often than a few do: in each worker one
# asks for all.  Half of them are streams of ten connections.

$hold = open_request($n1, '/hold?k=x');
soon(sub { held('x') == 1 }, 5, 'held');

sub commands {
    my ($seconds) = @_;
    my $count = sub {
        my %n = $r->command('INFO', 'commandstats')
                =~ /^cmdstat_(\S+?):calls=(\d+)/mg;
        delete @n{qw(info)};
        my $sum = 0;
        $sum += $_ for values %n;
        return $sum;
    };
    my $before = $count->();
    sleep $seconds;
    return $count->() - $before;
}

my @h2 = map { Coord::HTTP2->new(port => $_->port(2)) } ($n1, $n2) x 5;
my @streams = map { [$_, $_->request('/wait?k=x')] } @h2;
@line = map { open_request($_ % 2 ? $n1 : $n2, '/wait?k=x') } 1 .. 10;
soon(sub { line('x') == 20 }, 10, 'twenty wait');
sleep 1;
my $few = commands(3);

push @streams, map { my $h2 = $_; map { [$h2, $h2->request('/wait?k=x')] }
                                  1 .. 49 } @h2;
push @line, map { open_request($_ % 2 ? $n1 : $n2, '/wait?k=x') } 1 .. 490;
soon(sub { line('x') == 1000 }, 60, '1000 wait') or do {
    diag(sprintf('line: %s, held: %s', line('x'), held('x')));

    for my $n ($n1, $n2) {
        my %n;
        $n{$_}++ for split(/\n/, slurp($n->file('c.log')));
        diag(join('', $n->name, map { "; $_: $n{$_}" } sort keys %n));
        diag($_) for $n->log_lines(qr/\[(?:notice|warn|error)\].*coord/);
    }
};
sleep 1;
my $many = commands(3);
cmp_ok($many, '<', 1500, "no busy loop: $many commands in 3 s");
cmp_ok($many, '<', 2 * $few + 100, "twenty who waited took $few");

$hold->close;
$start = time;
my $passed = grep { $_->response('GET', 60)->status == 200 } @line;
is($passed, 500, sprintf('all pass, after %.1f s', time - $start));
$passed = grep { $_->[0]->ended($_->[1], 60)
                 && $_->[0]->stream($_->[1])->{status} == 200 } @streams;
is($passed, 500, 'all streams as well');
soon(sub { line('x') == 0 && held('x') == 0 }, 5, 'nothing is left');


# reload while some wait

$hold = open_request($n1, '/hold?k=r');
soon(sub { held('r') == 1 }, 5, 'held');
$wait = open_request($n1, '/wait?k=r');
soon(sub { line('r') == 1 }, 5, 'one waits');
my @old = $n1->reload;
sleep 0.5;
$hold->close;
is($wait->response('GET', 10)->status, 200, 'passes after a reload');
$wait->close;
ok($n1->wait_gone(10, @old), 'old workers exit');

done_testing();
