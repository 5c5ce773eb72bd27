#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_subscribe with thousands of clients (COORD_CLIENTS=10000 for as many),
# slow ones, ones that leave, and a browser.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Events;
use Coord::Util qw(slurp);
use IO::Poll qw(POLLIN);
use IO::Socket::INET;
use Socket qw(SOL_SOCKET SO_RCVBUF);
use Time::HiRes qw(sleep time);

my $n = $ENV{COORD_CLIENTS} || 2000;
my $open = `sh -c 'ulimit -n'`;

plan(skip_all => "ulimit -n is $open") if $open < $n + 100;

my $t = Coord->new(time_limit => 600);
my $redis = $t->redis;
my $r = $redis->connect;

my $a = $t->node(name => 'a', workers => 1, main => <<"EOM", http => <<'EOT')->start;
worker_rlimit_nofile ${\ ($n + 1000)};
events { worker_connections ${\ ($n + 1000)}; }
EOM
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }

    server {
        listen 127.0.0.1:%%PORT%% backlog=4096;
        send_timeout 60s;

        location /events { coord_subscribe room heartbeat=off; }
        location /slow { coord_subscribe slow heartbeat=off; }
        location /page {
            default_type text/html;
            return 200 '<!DOCTYPE html><title>wait</title><script>
                const all = [];
                const es = new EventSource("/live");
                es.onopen = () => { fetch("/pub?c=page&m=one"); };
                es.addEventListener("page", e => {
                    all.push(e.data);
                    if (all.length == 1) { fetch("/pub?c=page&m=two"); }
                    if (all.length == 2) {
                        fetch("/pub?c=done&m=" + all.join(",") + ","
                              + (e.lastEventId.length > 10));
                    }
                });
                </script><body></body>';
        }
        location /done { coord_subscribe done; }
        location /live { coord_subscribe page history; }
        location /pub { coord_publish $arg_c $arg_m history=10; empty_gif; }

        location /api/ { coord_api; }
        location /status { coord_status; }
    }
EOT

# --- many ---

my $port = $a->port;
my @c;

for my $i (1 .. $n) {
    my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port") or last;
    $s->syswrite("GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
    push @c, $s;
    if ($i % 200 == 0) { expect($_, qr/\r\n\r\n/) for @c[-200 .. -1] }
}

is(scalar @c, $n, "$n clients are connected");
ok($t->wait_for(sub { listeners('room') == $n }, 30), 'and listen');
is($r->command(PUBSUB => 'NUMSUB', 'room')->[1], 1, 'Redis has one of them');

my $heard = metric('coord_events_heard_total');
my $time = $t->ran;
$r->command(PUBLISH => 'room', 'to all');
my $got = grep { expect($_, qr/data: to all\n\n/) } @c;
$time = $t->ran - $time;

is($got, $n, 'all have the message');
diag(sprintf '%d clients in %.3f s', $n, $time);
cmp_ok($time, '<', 10, 'soon');
is(metric('coord_events_heard_total') - $heard, 1, 'one message of Redis');
is(metric('coord_events_sent_total'), $n, 'and as many of ours as clients');

# --- who leaves ---

$_->close for splice @c, 0, $n / 2;
ok($t->wait_for(sub { listeners('room') == @c }, 30), 'half of them leave');
$r->command(PUBLISH => 'room', 'the rest');
is(scalar(grep { expect($_, qr/data: the rest\n\n/) } @c), scalar @c,
   'the others hear');

# --- who is slow ---

my $slow = IO::Socket::INET->new(Proto => 'tcp');
$slow->setsockopt(SOL_SOCKET, SO_RCVBUF, 4096);
$slow->connect(Socket::pack_sockaddr_in($port, Socket::inet_aton('127.0.0.1')));
$slow->syswrite("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
my $quick = Coord::Events->new($a, '/slow');
ok($t->wait_for(sub { listeners('slow') == 2 }), 'one reads, one does not');

my ($sent, $text) = (0, 'x' x 100_000);
my ($worker) = $a->workers;
my $rss = rss($worker);

for (1 .. 200) {
    $r->command(PUBLISH => 'slow', $text);
    last if length($quick->next(10)->{data} // '') != 100_000;
    $sent++;
}

is($sent, 200, 'the quick one has all of 20 MB');
is(metric('coord_events_cut_total'), 1, 'the slow one is cut off');
ok($a->wait_log(qr/a client of coord_subscribe is too slow/), 'and told');
is(listeners('slow'), 1, 'it is gone');

SKIP: {
    skip 'what is freed stays in the quarantine of ASan', 1
        if $ENV{TEST_SANITIZE};

    cmp_ok(rss($worker) - $rss, '<', 12_000, 'nothing was kept for it');
}

# --- the end of a worker ---

my @old = $a->reload;
is(scalar(grep { expect($_, qr/retry: \d+\n\n.*0\r\n\r\n\z/s) } @c),
   scalar @c, 'a reload ends all streams');
ok($a->wait_gone(10, @old), 'and the worker');
$_->close for @c, $slow;
$quick->close;

# --- a browser ---

my ($chromium) = grep { -x } map { ("$_/chromium", "$_/chromium-browser") }
                 split /:/, $ENV{PATH};

SKIP: {
    skip 'chromium is missing (Debian package chromium)', 1 unless $chromium;

    # the stream never ends, nor does the page: it publishes what it has heard

    my $done = Coord::Events->new($a, '/done');
    my $dir = $t->dir . '/chromium';
    my $pid = fork;

    if (!$pid) {
        open(STDOUT, '>', "$dir.log");
        open(STDERR, '>&', \*STDOUT);
        setpgrp;
        exec($chromium, qw(--headless --no-sandbox --disable-gpu
                           --disable-dev-shm-usage --remote-debugging-port=0),
             "--user-data-dir=$dir", $a->url('/page')) or exit 1;
    }

    my $said = $done->next(60);
    kill 'KILL', -$pid;
    waitpid($pid, 0);
    is($said && $said->{data}, 'one,two,true', 'an EventSource hears');
    $done->close;
}

done_testing();


sub expect {
    my ($s, $re) = @_;

    my $poll = IO::Poll->new;
    my $buf = '';

    $poll->mask($s => POLLIN);

    for (1 .. 1000) {
        return 0 if $poll->poll(20) < 1;
        return 0 if !$s->sysread($buf, 65536, length $buf);
        return 1 if $buf =~ $re;
    }

    return 0;
}


sub listeners {
    return $a->get("/api/events/$_[0]")->body =~ /"listeners": ?(\d+)/
           ? $1 : -1;
}


sub metric {
    my ($name) = @_;

    return $a->get('/status?format=prometheus')->body
           =~ /^\Q$name\E\{store="main"\} (\d+)$/m ? $1 : -1;
}


sub rss { return slurp("/proc/$_[0]/status") =~ /^VmRSS:\s+(\d+)/m ? $1 : 0 }
