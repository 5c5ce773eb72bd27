#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A server, or something between it and us, that sends what it should not
# (cases 13 to 19 of the failure list): the worker lives, every request is
# answered, none acts on the reply of another, and the service comes back.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
my $redis = $t->redis;
my $fake = $t->fake_redis(upstream => $redis->{port});
my $conn = $redis->connect;

my $n = $t->node(name => 'n', http => <<'EOF')->start;
    coord_store main { server %%FAKE%%; timeout 150ms; connect_timeout 1s;
                       breaker failures=100000; }
    coord_limit_req_zone $arg_k zone=win:1m rate=1000000r/h
                         algorithm=fixed_window;
    server {
        listen 127.0.0.1:%%PORT%%;
        location / {
            coord_limit_req zone=win;
            add_header X-Status $coord_limit_req_status;
            add_header X-Remaining $coord_limit_req_remaining;
            empty_gif;
        }
    }
EOF

my ($worker) = $n->workers;
my $key = 0;
my $faults = 0;


# A marker for each key: its count in Redis, which only its own reply tells.
# True if a request on it got that reply, false if it went on without one;
# any other number is a wrong answer.

my ($right, $bypassed, $wrong) = (0, 0, 0);

sub mark {
    my (@k) = @_;

    $conn->pipeline(map { ['SET', "coord:rl:win:{$_}",
                           pack('N', $_ * 7), 'PX', 3600000] } @k);
}


sub judge {
    my ($k, $r) = @_;

    if ($r->status != 200) {
        $wrong++;
        diag("key $k: status " . $r->status . ' ' . $r->{error});
        return;
    }

    if ($r->header('X-Status') eq 'BYPASSED') {
        $bypassed++;
        return 0;
    }

    if ($r->header('X-Remaining') == 1000000 - $k * 7 - 1) {
        $right++;
        return 1;
    }

    $wrong++;
    diag("key $k: remaining " . $r->header('X-Remaining'));
    return;
}


sub ask {
    my ($count) = @_;

    my @k = map { ++$key } 1 .. $count;
    mark(@k);

    my @r = $count == 1 ? ($n->get("/?k=$k[0]"))
                        : $t->parallel([map { $n->req("/?k=$_") } @k]);

    return map { judge($k[$_], $r[$_]) } 0 .. $#k;
}


sub recovered { return $t->wait_for(sub { (ask(1))[0] }, 10) }

sub vmsize {
    open my $fh, '<', "/proc/$worker/status" or return 0;
    my ($kb) = join('', <$fh>) =~ /VmSize:\s+(\d+)/;
    return $kb;
}


ok(recovered(), 'the service works');


# bytes that nobody asked for

for my $bytes ("+OK\r\n", ":1\r\n", ">2\r\n+a\r\n+b\r\n", "-ERR boo\r\n")
{
    (my $name = $bytes) =~ s/([^ -~])/sprintf '\x%02x', ord $1/ge;

    $fake->push($bytes);
    ok(recovered(), "unasked when idle: $name");

    for my $action (qw(before after)) {
        for my $cmd (qw(MULTI EXEC)) {
            $fake->fault(action => $action, data => $bytes, cmd => $cmd);
            $faults++;
            ask(4);
            $fake->clear;
        }
    }
}


# sizes that lie

my $size = vmsize();

for my $bytes ("*2147483647\r\n", "*4294967297\r\n", "%4294967295\r\n",
               "*1\r\n" x 10000, "\$9223372036854775807\r\n",
               "\$2147483647\r\nx", "\$-5\r\n", "*-7\r\n", ":99999999999999999999\r\n",
               "\$3\r\nabcXX", "\$2\r\nabc\r\n", "\$4\r\nabc\r\n",
               "*5\r\n:1\r\n")
{
    (my $name = substr($bytes, 0, 30)) =~ s/([^ -~])/sprintf '\x%02x', ord $1/ge;

    $fake->fault(action => 'replace', data => $bytes, cmd => 'EXEC');
    $faults++;
    ask(3);
    $fake->clear;
    ok(recovered(), "back after $name");
}

cmp_ok(vmsize() - $size, '<', 8 * 1024, 'no memory was reserved for the lies');

$fake->fault(action => 'replace', data => '+' . 'x' x (1024 * 1024),
             cmd => 'EXEC');
ask(1);
$fake->clear;
ok(recovered(), 'back after a line without an end');
cmp_ok(vmsize() - $size, '<', 8 * 1024, 'which was not kept');


# a reply lost or doubled, anywhere in the stream

for my $action (qw(drop duplicate)) {
    for my $cmd (qw(MULTI BITFIELD ECHO EXEC)) {
        for my $nth (1) {
            $fake->fault(action => $action, cmd => $cmd, nth => $nth);
            $faults++;
            ask(10);
            $fake->clear;
            recovered();
        }
    }
}

ok(recovered(), 'back after lost and doubled replies');


# one byte a segment

$fake->fault(action => 'split', times => 0);
my @got = ask(1);
is($got[0], 1, 'one byte a segment: the right answer');
$fake->clear;


# the end of the connection at each byte of a reply

for my $rst (0, 1) {
    for my $offset (map { 7 * $_ } 0 .. 10) {
        $faults++;
        $fake->fault(action => 'close', offset => $offset, rst => $rst,
                     cmd => 'EXEC');
        ask(1);
        $fake->clear;
    }

    ok(recovered(), $rst ? 'RST at each byte' : 'FIN at each byte');
}


# error replies, each in its class

for my $error ('LOADING Redis is loading', 'MASTERDOWN x', 'BUSY x',
               'MISCONF x', 'OOM command not allowed', 'READONLY x',
               'NOREPLICAS x', 'CLUSTERDOWN x', 'TRYAGAIN x',
               'ERR max number of clients reached', 'WRONGTYPE x',
               'MOVED 1 127.0.0.1:1', 'EXECABORT x', 'ERR unknown')
{
    for my $cmd (qw(BITFIELD EXEC)) {
        $fake->fault(action => 'replace', data => "-$error\r\n", cmd => $cmd);
        my ($rc) = ask(1);
        ok(defined $rc, "-$error to $cmd: the request goes on");
        $fake->clear;
    }

    ok(recovered(), "back after -$error");
}

my ($foreign) = (++$key);
$conn->command('LPUSH', "coord:rl:win:{$foreign}", 'x');
is($n->get("/?k=$foreign")->header('X-Status'), 'BYPASSED',
   'a key of another type limits nothing');
is($conn->command('TYPE', "coord:rl:win:{$foreign}"), 'list',
   'and is left alone');


# the sum of it

cmp_ok($fake->fired, '>=', 0.7 * $faults, "the faults were made: $faults");
is($wrong, 0, 'no request got an answer that was not its own');
cmp_ok($right, '>', 40, "$right right answers");
cmp_ok($bypassed, '>', 20, "$bypassed requests went on without one");
is_deeply([$n->workers], [$worker], 'the worker is the same');

done_testing();
