#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A server that sends subscribers what nobody asked for: the connection is
# closed and made anew, the clients stay, and nothing of it reaches them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Events;
use Time::HiRes qw(sleep time);

my $t = Coord->new;

sub bulk { return '$' . length($_[0]) . "\r\n$_[0]\r\n" }
sub array { return '*' . @_ . "\r\n" . join '', map { bulk($_) } @_ }
sub message { return array('message', @_) }

sub changed {
    my ($kind, $channel) = @_;

    return "*3\r\n" . bulk($kind) . bulk($channel) . ":1\r\n";
}

my $fake = $t->fake_redis(on => {
    SUBSCRIBE => sub { my ($conn, $channel) = @_;
                       return changed('subscribe', $channel) },
    UNSUBSCRIBE => sub { my ($conn, $channel) = @_;
                         return changed('unsubscribe', $channel) },
});

my $n = $t->node(name => 'a', http => <<'EOT')->start;
    coord_store main { server %%FAKE%%; timeout 2s; connect_timeout 5s; }
    server {
        listen 127.0.0.1:%%PORT%%;
        location /events { coord_subscribe room; }
        location /history { coord_subscribe other history; }
    }
EOT

my $es = Coord::Events->new($n, '/events');
is($es->status, 200, 'a stream');

# the connection for commands gets what is pushed, too, and is closed by it

sub heard {
    my $i = 0;

    return $t->wait_for(sub {
        $fake->push(message('room', 'good ' . ++$i));
        my $e = $es->next(0.1) or return 0;
        return $e->{data} =~ /^good \d+$/ ? 1 : die "heard $e->{data}\n";
    }, 20);
}

ok(heard(), 'what was asked for is heard');

for (['a message of another channel', message('elsewhere', 'bad')],
     ['a subscription', changed('subscribe', 'elsewhere')],
     ['the end of one', changed('unsubscribe', 'room')],
     ['a pattern', array('pmessage', '*', 'room', 'bad')],
     ['a message of two parts', array('message', 'room')],
     ['one of four', array('message', 'room', 'bad', 'bad')],
     ['a message that is a number', "*3\r\n" . bulk('message') . bulk('room')
                                    . ":1\r\n"],
     ['a message that is none', "*3\r\n" . bulk('message') . bulk('room')
                                . "\$-1\r\n"],
     ['a pong', array('pong', '')],
     ['a number', ":1\r\n"],
     ['an error', "-ERR bad\r\n"],
     ['no protocol', "bad\r\n"],
     ['RESP3', ">3\r\n" . bulk('message') . bulk('room') . bulk('bad')])
{
    my ($what, $bytes) = @$_;

    $fake->push($bytes);
    ok(heard(), "$what: nobody hears it, and it goes on");
}

# the stream of a history that is none

for my $reply (":1\r\n", "*0\r\n", "*1\r\n*0\r\n", "*1\r\n" . bulk('x'),
               "*1\r\n*2\r\n" . bulk('x-1') . "*0\r\n", "-WRONGTYPE x\r\n")
{
    $fake->fault(cmd => 'EXEC', action => 'replace', times => 0,
                 data => "*3\r\n$reply$reply" . bulk('x'));
    my $c = Coord::Events->new($n, '/history', last => '1-1');
    is($c->status, 200, 'a history that is none: the stream begins');
    is($c->next(0.3), undef, 'and nothing comes');
    $c->close;
    $fake->clear;
}

ok(heard(), 'and others hear');
is(scalar($n->workers), 1, 'one worker');
is(scalar(() = $n->log =~ /exited on signal/g), 0, 'all the time');

$es->close;

done_testing();
