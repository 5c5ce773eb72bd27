#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_idempotency: many who wait for one twin, and a worker that is to end.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP;

my $t = Coord->new;
my $redis = $t->redis;
my $watch = $redis->watch;

my $crowd = 200;
my $large = 'x' x 100_000;

my $origin = $t->origin(routes => {
    '/slow' => { delay => 3, body => $large },
    '/fails' => sub {
        my ($req) = @_;
        return $req->{n} == 2 ? { delay => 1, status => 503 }
                              : { delay => 1, body => 'second' };
    },
    '/hang' => { delay => 12, body => 'late' },
});

my $http = <<'EOF';
    coord_idempotency_scope off;
    proxy_read_timeout 20s;

    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% http2;
        coord_idempotency on;
        coord_idempotency_wait 30s;

        location / { proxy_pass http://%%ORIGIN%%; }

        location /short/ {
            coord_idempotency_wait 1s;
            proxy_pass http://%%ORIGIN%%/;
        }
    }
EOF

for my $store ('redis', 'memory') {
    my $n = $t->node(name => $store, workers => 1, http =>
        ($store eq 'redis' ? 'coord_store main { server %%REDIS%%; '
                             . 'timeout 30s; connect_timeout 30s; }' : '') . $http)->start;

    subtest "$store: a crowd" => sub { crowd($n, $store) };
    $n->stop;
}

for my $case ([ 'http1', 0 ], [ 'http1', 1 ], [ 'http2', 0 ],
              [ 'http2', 1 ])
{
    subtest "shutdown: $case->[0], gone $case->[1]" => sub { ends(@$case) };
}

done_testing();


sub commands {
    my ($n) = $redis->connect->command('INFO', 'stats')
              =~ /total_commands_processed:(\d+)/;

    return $n;
}


sub crowd {
    my ($n, $store) = @_;

    my $h = [ 'Idempotency-Key' => "crowd" ];
    my @conns;

    $origin->reset_counters;

    my $asked = commands();

    my $comes = sub {
        my $conn = $n->connect;
        $conn->send(Coord::HTTP::format(method => 'POST', path => '/slow',
                                        body => 'b', headers => $h));
        push @conns, $conn;
    };

    # one runs, and one has asked and waits for that, before the others come

    $comes->();
    $t->wait_for(sub { $origin->count }, 10);
    $store eq 'redis' ? $watch->after($comes, 'exec') : $comes->();
    $comes->() for 3 .. $crowd;

    # all have asked: what comes now is of those who wait

    $t->wait_for(sub { $n->log_lines(qr/POST/) || $origin->count }, 10);
    select undef, undef, undef, 0.5;

    my $before = commands();

    # who comes when one waits already does not ask, and a claim is ten commands

    cmp_ok($before - $asked, '<', $crowd * 10 / 3, 'few of them have asked')
        if $store eq 'redis';

    select undef, undef, undef, 1;
    my $during = commands() - $before;

    my @r = map { $_->response('POST', 20) } @conns;

    is(scalar(grep { $_->status == 200 && $_->body eq $large } @r), $crowd,
       'all get the response');
    is(scalar(grep { ($_->header('Idempotency-Replayed') || '') eq 'true' }
              @r), $crowd - 1, 'all but one a replay');
    is($origin->count('/slow'), 1, 'one execution');

    # one of them asks, each half a second: 8 commands at most

    cmp_ok($during, '<', 100, 'few commands while they wait')
        if $store eq 'redis';

    # a twin that fails: one of them is the next

    $h = [ 'Idempotency-Key' => "fails" ];
    @r = $n->parallel(20, '/fails', method => 'POST', body => 'b',
                      headers => $h);
    is(scalar(grep { $_->status == 503 } @r), 1, 'fails: one');
    is(scalar(grep { $_->body eq 'second' } @r), 19, 'fails: the others');
    is($origin->count('/fails'), 2, 'fails: executions');

    # who has waited long enough

    $h = [ 'Idempotency-Key' => "short" ];
    @r = $n->parallel(20, '/short/slow', method => 'POST', body => 'b',
                      headers => $h);
    is(scalar(grep { $_->status == 409 } @r), 19, 'too long: 409');
}


# worker_shutdown_timeout ends what the client has left as well

sub ends {
    my ($protocol, $gone) = @_;

    my $n = $t->node(name => "ends$protocol$gone", workers => 1,
                     main => 'worker_shutdown_timeout 1s;',
                     http => $http)->start;
    my ($old) = $n->workers;
    my $conn = $n->connect($protocol eq 'http2' ? (port => $n->port(2)) : ());

    $origin->reset_counters;

    if ($protocol eq 'http2') {
        $conn->send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" . frame(4, 0, 0, '')
                    . frame(1, 4, 1, join '', map { literal(@$_) }
                            [ ':method', 'POST' ], [ ':scheme', 'http' ],
                            [ ':path', '/hang' ], [ ':authority', 'h2' ],
                            [ 'idempotency-key', 'k' ],
                            [ 'content-length', 4 ])
                    . frame(0, 1, 1, 'body'));

    } else {
        $conn->send(Coord::HTTP::format(method => 'POST', path => '/hang',
                    body => 'b', headers => [ 'Idempotency-Key' => 'k' ]));
    }

    ok($t->wait_for(sub { $origin->count == 1 }, 10), 'it runs');
    $conn->reset if $gone;
    select undef, undef, undef, 0.3;

    $n->signal('HUP');

    ok($t->wait_for(sub { !kill(0, $old) }, 9),
       'the old worker ends long before its upstream');

    $n->stop;
}


sub frame {
    my ($type, $flags, $stream, $payload) = @_;

    return substr(pack('N', length $payload), 1)
           . pack('CCN', $type, $flags, $stream) . $payload;
}


sub literal {
    my ($name, $value) = @_;

    return "\0" . pack('C', length $name) . $name
           . pack('C', length $value) . $value;
}
