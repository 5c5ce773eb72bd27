#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_idempotency: the result outlives the client, with the defaults of
# proxy_ignore_client_abort, and nothing else does.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP;

my $t = Coord->new;
$t->redis;

my $large = join '', map { sprintf '%08d', $_ } 1 .. 60_000;    # 480 kB
my $huge = $large x 8;
my $origin = $t->origin(routes => {
    '/early' => { delay => 1, body => $large },
    '/middle' => { parts => [ [0, substr($large, 0, 200_000)],
                              [1, substr($large, 200_000)] ] },
    '/chunked' => { parts => [ [0, substr($large, 0, 200_000)],
                               [1, substr($large, 200_000)] ],
                    chunked => 5000 },
    '/close' => { parts => [ [0, substr($large, 0, 200_000)],
                             [1, substr($large, 200_000)] ],
                  until_close => 1 },
    '/cut' => { delay => 1, body => $large, close_at => 300_000 },
    '/bad' => { delay => 1, status => 500, body => $large },
    '/huge' => { delay => 0.3, body => $huge },
    '/short' => { delay => 1, body => 'short' },
    '/none' => { delay => 1, status => 204 },
    '/events' => { parts => [ [0, "data: 1\n\n"], [3, "data: 2\n\n"] ],
                   headers => [ 'Content-Type' => 'text/event-stream' ],
                   chunked => 1 },
});

my $n = $t->node(name => 'n', workers => 1, http => <<'EOF')->start;
    coord_store main { server %%REDIS%%; timeout 2s; connect_timeout 2s; }
    log_format status '$uri $status $coord_idempotency_status $bytes_sent';
    access_log %%NODEDIR%%/status.log status;
    coord_idempotency on;
    coord_idempotency_scope off;
    coord_idempotency_max_response 8m;
    client_body_buffer_size 1k;
    keepalive_timeout 60s;
    proxy_http_version 1.1;
    send_timeout 2s;

    server {
        listen 127.0.0.1:%%PORT%% sndbuf=8k;
        listen 127.0.0.1:%%PORT_2%% http2;

        location /on/ { proxy_pass http://%%ORIGIN%%/; }

        location /off/ {
            proxy_buffering off;
            proxy_pass http://%%ORIGIN%%/;
        }

        location /little/ {
            proxy_buffer_size 4k;
            proxy_buffers 2 4k;
            proxy_busy_buffers_size 4k;
            proxy_max_temp_file_size 0;
            gzip on;
            gzip_types *;
            proxy_pass http://%%ORIGIN%%/;
        }

        location /small/ {
            coord_idempotency_max_response 1k;
            proxy_pass http://%%ORIGIN%%/;
        }

        location /smalloff/ {
            coord_idempotency_max_response 1k;
            proxy_buffering off;
            proxy_pass http://%%ORIGIN%%/;
        }

        location /shadow/ {
            coord_idempotency on shadow;
            proxy_pass http://%%ORIGIN%%/;
        }

        location /fallback/ {
            error_page 502 = @fallback;
            proxy_pass http://127.0.0.1:%%PORT_9%%/;
        }

        location @fallback {
            rewrite ^/fallback(/.*) $1 break;
            proxy_pass http://%%ORIGIN%%;
        }

        location /status { coord_idempotency off; stub_status; }
    }
EOF

my $serial = 0;


# one abort after another

for my $mode (qw(on off little)) {
    for my $how (qw(close reset)) {
        aborted("/$mode/early", $how);
        aborted("/$mode/middle", $how, 1);
    }

    aborted("/$mode/chunked", 'reset', 1);
    aborted("/$mode/close", 'reset', 1);
    aborted("/$mode/none", 'reset', 0, '', 204);
}

aborted('/fallback/early', 'reset');
aborted('/fallback/middle', 'close', 1);

for my $mode (qw(small smalloff)) {
    for my $how (qw(close reset)) {
        aborted("/$mode/early", $how, 0, '');
        aborted("/$mode/middle", $how, 1, '');
    }
}


# a client that stops reading

for my $mode (qw(on off little)) {
    my $h = [ 'Idempotency-Key' => 'stalled' . ++$serial ];
    my $conn = start("/$mode/huge", $h);
    ok($conn->read(10), "$mode, stalled: gets something");

    my $r = settled("/$mode/huge", $h);
    is($r->header('Idempotency-Replayed'), 'true', "$mode, stalled: stored");
    ok($r->body eq $huge, "$mode, stalled: all of it");
    ok($conn->closed(20), "$mode, stalled: and let go");
}

for my $mode (qw(small smalloff)) {
    my $h = [ 'Idempotency-Key' => 'stalled' . ++$serial ];
    my $conn = start("/$mode/huge", $h);
    ok($conn->read(10), "$mode, stalled: gets something");

    my $r = settled("/$mode/huge", $h);
    is($r->header('Idempotency-Replayed'), 'omitted',
       "$mode, stalled: stored");
    ok($conn->closed(20), "$mode, stalled: and let go");
}

# a client that is slow, and one that closes its side only

{
    my $h = [ 'Idempotency-Key' => 'slow' . ++$serial ];
    my $conn = start('/on/huge', $h);
    my $length = 0;

    while (defined(my $bytes = $conn->read(10))) {
        last if $bytes eq '';
        $length += length $bytes;
        select undef, undef, undef, 0.001;
    }

    cmp_ok($length, '>', length $huge, 'slow: gets all');

    $h = [ 'Idempotency-Key' => 'half' . ++$serial ];
    $conn = start('/on/short', $h);
    $t->wait_for(sub { $origin->count('/short') }, 10);
    shutdown $conn->{sock}, 1;
    my $r = $conn->response(method => 'POST', timeout => 10);
    is($r->body, 'short', 'closes its side: gets its response');
}

is($origin->aborted, 0, 'no upstream was left before its end');


# HTTP/2: a stream that is reset, a connection that is lost

for my $mode (qw(on off little small)) {
    my $body = $mode eq 'small' ? '' : $large;

    for my $route (qw(early middle)) {
        my $h = [ 'Idempotency-Key' => 'h2' . ++$serial ];
        my $before = $origin->count("/$route");
        my $conn = h2_start("/$mode/$route", $h);

        $t->wait_for(sub { $origin->count("/$route") == $before + 1 }, 10);
        $conn->read(5) if $route eq 'middle';
        select undef, undef, undef, 0.2;
        $conn->send(frame(3, 0, 1, pack('N', 8)));

        my $r = settled("/$mode/$route", $h, host => 'h2');
        ok($r->header('Idempotency-Replayed'), "h2 $mode $route: RST_STREAM");
        ok($r->body eq $body, "h2 $mode $route: body");
        is($origin->count("/$route"), $before + 1, "h2 $mode $route: once");

        # other streams go on

        $conn->send(frame(6, 0, 0, 'pingpong'));
        like(drain($conn, 'pingpong'), qr/pingpong/, 'h2: connection lives');

        $h = [ 'Idempotency-Key' => 'h2' . ++$serial ];
        $conn = h2_start("/$mode/$route", $h);
        $t->wait_for(sub { $origin->count("/$route") == $before + 2 }, 10);
        $conn->reset;

        $r = settled("/$mode/$route", $h, host => 'h2');
        ok($r->header('Idempotency-Replayed'), "h2 $mode $route: lost");
        ok($r->body eq $body, "h2 $mode $route: body");
    }
}

is($origin->aborted, 0, 'no upstream was left before its end, HTTP/2');


# nothing to be kept

for my $path ('/on/cut', '/off/cut', '/on/bad', '/off/bad') {
    my $h = [ 'Idempotency-Key' => 'bad' . ++$serial ];
    my ($route) = $path =~ m!(/\w+)$!;
    my $before = $origin->count($route);
    my $conn = start($path, $h);

    $t->wait_for(sub { $origin->count($route) == $before + 1 }, 10);
    $conn->reset;
    my $r = settled($path, $h);
    is($r->header('Idempotency-Replayed'), undef, "$path: not stored");
    is($origin->count($route), $before + 2, "$path: executed again");
}

# a stream of events, and what is not protected, end with their client

for my $path ('/on/events', '/shadow/early') {
    my $before = $origin->aborted;
    my $count = $origin->count;
    my $conn = start($path, [ 'Idempotency-Key' => 'events' . ++$serial ]);

    $t->wait_for(sub { $origin->count > $count }, 5);
    $conn->read(5) if $path =~ /events/;
    $conn->reset;

    ok($t->wait_for(sub { $origin->aborted == $before + 1 }, 10),
       "$path: the upstream is left");
}

{
    my $before = $origin->aborted;
    my $count = $origin->count;
    my $conn = start('/on/early', []);
    $t->wait_for(sub { $origin->count > $count }, 5);
    $conn->reset;
    ok($t->wait_for(sub { $origin->aborted == $before + 1 }, 10),
       'without a key the upstream is left');
}

# what is left of them: no connection, no request

ok($t->wait_for(sub {
       my $text = $n->get('/status')->body;
       my ($active) = $text =~ /Active connections: (\d+)/;
       my ($writing) = $text =~ /Writing: (\d+)/;
       return $writing == 1 && $active == 1;
   }, 10), 'no request is left') or diag($n->get('/status')->body);

unlike($n->log, qr/count is zero/, 'requests are counted');

done_testing();


sub start {
    my ($path, $h) = @_;

    my $conn = $n->connect;

    $conn->send(Coord::HTTP::format(method => 'POST', path => $path,
                                    body => 'body', headers => $h));

    return $conn;
}


# what a client gets that asks until there is an answer

sub settled {
    my ($path, $h, %opt) = @_;

    my $r;

    $t->wait_for(sub {
        $r = $n->post($path, 'body', headers => $h, timeout => 20, %opt);
        return $r->status != 409;
    }, 20);

    return $r;
}


sub aborted {
    my ($path, $how, $read, $body, $status) = @_;

    my $h = [ 'Idempotency-Key' => "abort" . ++$serial ];
    my ($route) = $path =~ m!(/\w+)$!;
    my $before = $origin->count($route);
    my $conn = start($path, $h);

    $body = $large if !defined $body;

    $t->wait_for(sub { $origin->count($route) == $before + 1 }, 10);
    $conn->read(10) if $read;
    $how eq 'close' ? $conn->close : $conn->reset;

    my $r = settled($path, $h);

    ok($r->header('Idempotency-Replayed'), "$path, $how: stored");
    is($r->status, $status || 200, "$path, $how: status");
    ok($r->body eq $body, "$path, $how: body");
    is($origin->count($route), $before + 1, "$path, $how: once");
}


# HTTP/2 by hand

sub frame {
    my ($type, $flags, $stream, $payload) = @_;

    return substr(pack('N', length $payload), 1)
           . pack('CCN', $type, $flags, $stream) . $payload;
}


sub h2_start {
    my ($path, $h) = @_;

    my $conn = $n->connect(port => $n->port(2));
    my $block = join '', map { literal(@$_) }
                [ ':method', 'POST' ], [ ':scheme', 'http' ],
                [ ':path', $path ], [ ':authority', 'h2' ],
                [ lc $h->[0], $h->[1] ], [ 'content-length', 4 ];

    # a window of 100 kB: the rest waits for the client

    $conn->send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                . frame(4, 0, 0, pack('nN', 4, 100_000))
                . frame(1, 4, 1, $block) . frame(0, 1, 1, 'body'));

    return $conn;
}


sub literal {
    my ($name, $value) = @_;

    return "\0" . pack('C', length $name) . $name
           . pack('C', length $value) . $value;
}


sub drain {
    my ($conn, $what) = @_;

    my $all = '';

    while (defined(my $bytes = $conn->read(5))) {
        last if $bytes eq '';
        $all = substr($all . $bytes, -100_000);
        last if $all =~ /$what/;
    }

    return $all;
}
