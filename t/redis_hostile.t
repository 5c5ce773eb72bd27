#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A server, or something between it and us, that sends what it should not
# (cases 13 to 19 of the failure list): the worker lives, every request is
# answered, none acts on the reply of another, and the service comes back.
#
# One worker has many stores, all on the same server: each is a lane with a
# connection and a back-off of its own, so that the faults of a round cost the
# time of one.  A fault is set when its lane works, and has to fire.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
my $redis = $t->redis;
my $fake = $t->fake_redis(upstream => $redis->{port});
my $conn = $redis->connect;

my @lanes = map { "s$_" } 1 .. 60;
my ($stores, $locations) = ('', '');

for my $lane (@lanes) {
    $stores .= "coord_store $lane { server %%FAKE%%; timeout 2s; "
               . "connect_timeout 10s; breaker failures=100000; }\n"
               . "coord_limit_req_zone \$arg_k zone=$lane:64k store=$lane "
               . "rate=1000000r/h algorithm=fixed_window;\n";
    $locations .= "location /$lane { coord_limit_req zone=$lane; "
                  . "empty_gif; }\n";
}

my $n = $t->node(name => 'n', http => <<"EOF")->start;
    $stores
    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Status \$coord_limit_req_status;
        add_header X-Remaining \$coord_limit_req_remaining;
        $locations
    }
EOF

my ($worker) = $n->workers;


# Each request has a key of its own, with a count in Redis that only its own
# reply tells.  All counts have six digits, so that all replies have one size.

my $key = 20000;
my @wrong;


# true: the request got its own reply; false: it went on without one

sub judge {
    my ($name, $k, $r) = @_;

    if ($r->status != 200) {
        push @wrong, "$name: status " . $r->status . " $r->{error}";
        return;
    }

    return 0 if $r->header('X-Status') eq 'BYPASSED';

    if ($r->header('X-Remaining') != 1000000 - $k * 7 - 1) {
        push @wrong, "$name: remaining " . $r->header('X-Remaining');
        return;
    }

    return 1;
}


# ask([lane, name, count], ..): all at once; returns a list for each

sub ask {
    my @sets = map { my ($lane, $name, $count) = @$_;
                     map { [$lane, $name, ++$key] } 1 .. $count } @_;

    $conn->pipeline(map { ['SET', "coord:rf:$_->[0]:{$_->[2]}",
                           pack('N', $_->[2] * 7), 'PX', 3600000] } @sets);

    my @r = $t->parallel([map { $n->req("/$_->[0]?k=$_->[2]") } @sets]);
    my @got = map { judge($sets[$_][1], $sets[$_][2], $r[$_]) } 0 .. $#sets;

    return map { [splice @got, 0, $_->[2]] } @_;
}


# waits until the lanes work, returns those that do not

sub down {
    my (@down) = @_;

    $t->wait_for(sub {
        my @got = ask(map { [$_, "$_ is back", 1] } @down);
        @down = @down[grep { !$got[$_][0] } 0 .. $#down];
        return !@down;
    }, 30);

    return @down;
}


my $tried = 0;

# run($title, [name, requests, want, %fault], ..): a round on as many lanes
# as there are, and on until all is done; what is wanted is the outcome of each
# request, undef: either

sub run {
    my ($title, @jobs) = @_;

    my $all = @jobs;
    $tried += $all;
    my (@lost, @idle, @odd, %used);

    while (my @round = splice @jobs, 0, scalar @lanes) {
        my @on = splice @lanes, 0, scalar @round;
        push @lanes, @on;
        $used{$_} = 1 for @on;

        push @lost, down(@on);

        for my $i (0 .. $#round) {
            my (undef, undef, undef, %fault) = @{$round[$i]};
            $fake->fault(%fault, store => $on[$i]);
        }

        my @got = ask(map { [$on[$_], @{$round[$_]}[0, 1]] } 0 .. $#round);

        # requests of one turn of the event loop share a call: it may take more

        for (1 .. 20) {
            last if $t->wait_for(sub { !$fake->waiting }, 0.5);
            my %late = map { $_->{store} => 1 } $fake->waiting;
            my @late = grep { $late{$on[$_]} } 0 .. $#round;
            my @more = ask(map { [$on[$_], "$round[$_][0], more", 1] } @late);
            push @{$got[$late[$_]]}, @{$more[$_]} for 0 .. $#more;
        }

        my %waiting = map { $_->{store} => 1 } $fake->waiting;
        push @idle, map { $round[$_][0] } grep { $waiting{$on[$_]} }
                    0 .. $#round;
        $fake->clear;

        for my $i (0 .. $#round) {
            my ($name, undef, $want) = @{$round[$i]};
            push @odd, $name if defined $want
                                && grep { !defined $_ || $_ != $want }
                                   @{$got[$i]};
        }
    }

    push @lost, down(keys %used);

    is_deeply(\@idle, [], "$title: all $all fired");
    is_deeply(\@odd, [], "$title: none that was not expected");
    is_deeply(\@lost, [], "$title: the service comes back");
}


sub show {
    my ($bytes) = @_;

    my $text = substr($bytes, 0, 30);
    $text =~ s/([^ -~])/sprintf '\x%02x', ord $1/ge;

    return $text;
}


sub vmsize {
    open my $fh, '<', "/proc/$worker/status" or return 0;
    my ($kb) = join('', <$fh>) =~ /VmSize:\s+(\d+)/;
    return $kb;
}


is_deeply([down(@lanes)], [], 'the service works');


# one byte a segment; this also tells what the replies to a call are

run('split', ['one byte a segment', 1, 1, action => 'split', times => 0]);

my @replies;

{
    my %seen;

    for ($fake->entries(action => 'split')) {
        next if $_->{cmd} ne 'MULTI' && !$seen{MULTI};
        last if $seen{EXEC};
        push @replies, { cmd => $_->{cmd}, nth => ++$seen{$_->{cmd}},
                         size => $_->{size} };
    }
}

my @cmds = map { $_->{cmd} } @replies;
is_deeply([@cmds[0, -1]], ['MULTI', 'EXEC'], "the replies: @cmds");


# bytes that nobody asked for

$t->wait_for(sub { $fake->commands('SUBSCRIBE') >= @lanes });

my @unasked = ("+OK\r\n", ":1\r\n", ">2\r\n+a\r\n+b\r\n", "-ERR boo\r\n");

for my $i (0 .. $#unasked) {
    my $name = show($unasked[$i]);

    is($fake->push($unasked[$i], $lanes[$i]), 1, "unasked when idle: $name");
    ok(scalar $n->wait_log(qr/unsolicited reply.* store: "$lanes[$i]"/, 10),
       "$name: is not kept for the next");
}

is_deeply([down(@lanes[0 .. $#unasked])], [], 'and the service comes back');

run('unasked', map {
    my $bytes = $_;
    map {
        my $r = $_;
        map { ["$_ $r->{cmd} " . show($bytes), 4, undef, action => $_,
               data => $bytes, cmd => $r->{cmd}, nth => $r->{nth}] }
            qw(before after)
    } @replies
} @unasked);


# sizes that lie

my $size = vmsize();

run('lies', map {
    [show($_), 3, undef, action => 'replace', data => $_, cmd => 'EXEC']
} ("*2147483647\r\n", "*4294967297\r\n", "%4294967295\r\n",
   "*1\r\n" x 10000, "\$9223372036854775807\r\n", "\$2147483647\r\nx",
   "\$-5\r\n", "*-7\r\n", ":99999999999999999999\r\n", "\$3\r\nabcXX",
   "\$2\r\nabc\r\n", "\$4\r\nabc\r\n", "*5\r\n:1\r\n"));

cmp_ok(vmsize() - $size, '<', 8 * 1024, 'no memory was reserved for them');

run('a line', ['without an end', 1, 0, action => 'replace', cmd => 'EXEC',
               data => '+' . 'x' x (1024 * 1024)]);

cmp_ok(vmsize() - $size, '<', 8 * 1024, 'which was not kept');


# a reply lost or doubled, anywhere in the stream

run('lost and doubled', map {
    my $r = $_;
    map {
        my $action = $_;
        map { ["$action $r->{cmd} of call $_", 10, undef, action => $action,
               cmd => $r->{cmd}, nth => $_] } 1, 2, 5, 10
    } qw(drop duplicate)
} @replies);


# all replies to a call, lost or foreign: only the nonce tells

my $foreign = "+OK\r\n" . "+QUEUED\r\n" x (@cmds - 2)
              . "*4\r\n\$-1\r\n*1\r\n:1\r\n:3600000\r\n"
              . "\$16\r\n0123456789abcdef\r\n";

run('whole calls', map {
    my $nth = $_;
    (["call $nth is not answered", 10, undef, action => 'drop',
      nth => ($nth - 1) * @cmds + 1, times => scalar @cmds],
     ["a foreign answer before call $nth", 10, undef, action => 'before',
      cmd => 'MULTI', nth => $nth, data => $foreign])
} 1, 2, 5, 9);


# the end of the connection at each byte of the replies to a call

for my $rst (0, 1) {
    my $how = $rst ? 'RST' : 'FIN';

    run("$how at each byte", map {
        my $r = $_;
        map { ["$how, $r->{cmd} byte $_", 1, 0, action => 'close',
               cmd => $r->{cmd}, nth => $r->{nth}, offset => $_, rst => $rst] }
            0 .. $r->{size} - 1
    } @replies);

    is(scalar(grep { $_->{size} != $replies[-1]{size} }
              $fake->entries(action => 'close', cmd => 'EXEC')), 0,
       "$how: no reply was longer");
}


# error replies, each in its class

run('errors', map {
    my $error = $_;
    map { ["-$error to $_", 1, 0, action => 'replace', data => "-$error\r\n",
           cmd => $_] } qw(BITFIELD EXEC)
} ('LOADING Redis is loading', 'MASTERDOWN x', 'BUSY x', 'MISCONF x',
   'OOM command not allowed', 'READONLY x', 'NOREPLICAS x', 'CLUSTERDOWN x',
   'TRYAGAIN x', 'ERR max number of clients reached', 'WRONGTYPE x',
   'MOVED 1 127.0.0.1:1', 'EXECABORT x', 'ERR unknown'));

$foreign = "coord:rf:$lanes[0]:{foreign}";
$conn->command('LPUSH', $foreign, 'x');
is($n->get("/$lanes[0]?k=foreign")->header('X-Status'), 'BYPASSED',
   'a key of another type limits nothing');
is($conn->command('TYPE', $foreign), 'list', 'and is left alone');


# the sum of it

is_deeply(\@wrong, [], 'no request got an answer that was not its own');
is_deeply([$n->workers], [$worker], 'the worker is the same');

# README tells their number

cmp_ok($tried, ">=", 370, "faults: $tried");

done_testing();
