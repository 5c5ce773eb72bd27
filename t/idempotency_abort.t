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
my @parts = ([0, substr($large, 0, 200_000)], [1, substr($large, 200_000)]);

# the first part of a path says what is answered, the second is the case's

my %answers = (
    early => { delay => 1, body => $large },
    middle => { parts => \@parts },
    chunked => { parts => \@parts, chunked => 5000 },
    close => { parts => \@parts, until_close => 1 },
    cut => { delay => 1, body => $large, close_at => 300_000 },
    bad => { delay => 1, status => 500, body => $large },
    huge => { delay => 0.3, body => $huge },
    short => { delay => 1, body => 'short' },
    none => { delay => 1, status => 204 },
    events => { parts => [ [0, "data: 1\n\n"], [3, "data: 2\n\n"] ],
                headers => [ 'Content-Type' => 'text/event-stream' ],
                chunked => 1 },
);

my $origin = $t->origin(default => sub { $answers{(split m!/!, $_[0]{path})[1]} });

my $n = $t->node(name => 'n', workers => 1, http => <<'EOF')->start;
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
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


# clients that leave, all at the same time

my @cases;

for my $mode (qw(on off little)) {
    for my $how (qw(close reset)) {
        push @cases, leave("/$mode/early", $how);
        push @cases, leave("/$mode/middle", $how, 1);
    }

    push @cases, leave("/$mode/chunked", 'reset', 1);
    push @cases, leave("/$mode/close", 'reset', 1);
    push @cases, leave("/$mode/none", 'reset', 0, '', 204);
}

push @cases, leave('/fallback/early', 'reset');
push @cases, leave('/fallback/middle', 'close', 1);

for my $mode (qw(small smalloff)) {
    for my $how (qw(close reset)) {
        push @cases, leave("/$mode/early", $how, 0, '');
        push @cases, leave("/$mode/middle", $how, 1, '');
    }
}

# and those that stop reading

push @cases, leave("/$_/huge", 'stall', 1, $huge) for qw(on off little);
push @cases, leave("/$_/huge", 'stall', 1, '') for qw(small smalloff);

left($_) for @cases;


# a client that is slow, and one that closes its side only

{
    my $h = [ 'Idempotency-Key' => 'slow' . ++$serial ];
    my $conn = start('/on/huge/slow', $h);
    my $length = 0;

    while (defined(my $bytes = $conn->read(10))) {
        last if $bytes eq '';
        $length += length $bytes;
        select undef, undef, undef, 0.001;
    }

    cmp_ok($length, '>', length $huge, 'slow: gets all');

    $h = [ 'Idempotency-Key' => 'half' . ++$serial ];
    $conn = start('/on/short/half', $h);
    $t->wait_for(sub { $origin->count('/short/half') }, 10);
    shutdown $conn->{sock}, 1;
    my $r = $conn->response(method => 'POST', timeout => 10);
    is($r->body, 'short', 'closes its side: gets its response');
}

is($origin->aborted, 0, 'no upstream was left before its end');


# HTTP/2: a stream that is reset, a connection that is lost

my @streams;

for my $mode (qw(on off little small)) {
    for my $route (qw(early middle)) {
        for my $how (qw(RST_STREAM lost)) {
            push @streams, h2_leave($mode, $route, $how);
        }
    }
}

for my $case (@streams) {
    my ($mode, $how, $path, $conn) = @$case{qw(mode how path conn)};
    my $r = settled("/$mode$path", $case->{headers}, host => 'h2');

    ok($r->header('Idempotency-Replayed'), "h2 $mode $path: $how");
    ok($r->body eq ($mode eq 'small' ? '' : $large), "h2 $mode $path: body");
    is($origin->count($path), 1, "h2 $mode $path: once");

    next if $how eq 'lost';

    # other streams go on

    $conn->send(frame(6, 0, 0, 'pingpong'));
    like(drain($conn, 'pingpong'), qr/pingpong/, 'h2: connection lives');
}

is($origin->aborted, 0, 'no upstream was left before its end, HTTP/2');

@streams = ();


# nothing to be kept

my @bad;

for my $path ('/on/cut', '/off/cut', '/on/bad', '/off/bad') {
    push @bad, leave($path, 'reset');
}

for my $case (@bad) {
    my $r = settled($case->{path}, $case->{headers});

    is($r->header('Idempotency-Replayed'), undef, "$case->{name}: not stored");
    is($origin->count($case->{route}), 2, "$case->{name}: executed again");
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


# a client that leaves when its request runs, or does not read any more

sub leave {
    my ($path, $how, $read, $body, $status) = @_;

    my $h = [ 'Idempotency-Key' => 'leave' . ++$serial ];

    $path .= "/$serial";

    my ($route) = $path =~ m!(/\w+/\w+)$!;
    my $conn = start($path, $h);

    $t->wait_for(sub { $origin->count($route) }, 10);
    $conn->read(10) if $read;
    $conn->close if $how eq 'close';
    $conn->reset if $how eq 'reset';

    return { path => $path, route => $route, how => $how, headers => $h,
             name => "$path, $how", conn => $conn, status => $status || 200,
             body => defined $body ? $body : $large };
}


# and what comes of it

sub left {
    my ($case) = @_;

    my $r = settled($case->{path}, $case->{headers});

    is($r->header('Idempotency-Replayed'),
       $case->{path} =~ /small/ ? 'omitted' : 'true', "$case->{name}: stored");
    is($r->status, $case->{status}, "$case->{name}: status");
    ok($r->body eq $case->{body}, "$case->{name}: body");
    is($origin->count($case->{route}), 1, "$case->{name}: once");
    ok($case->{conn}->closed(20), "$case->{name}: and let go")
        if $case->{how} eq 'stall';
}


# HTTP/2 by hand

sub frame {
    my ($type, $flags, $stream, $payload) = @_;

    return substr(pack('N', length $payload), 1)
           . pack('CCN', $type, $flags, $stream) . $payload;
}


sub h2_leave {
    my ($mode, $route, $how) = @_;

    my $h = [ 'Idempotency-Key' => 'h2' . ++$serial ];
    my $path = "/$route/$serial";
    my $conn = h2_start("/$mode$path", $h);

    $t->wait_for(sub { $origin->count($path) }, 10);
    $conn->read(5) if $route eq 'middle';

    # the stream alone, or the connection with it

    $how eq 'lost' ? $conn->reset : $conn->send(frame(3, 0, 1, pack('N', 8)));

    return { mode => $mode, how => $how, path => $path, headers => $h,
             conn => $conn };
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
