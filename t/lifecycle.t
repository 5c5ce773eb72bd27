#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Reload, kill, stop and upgrade under load: no request fails, no worker is
# left behind, and the limit holds all the while.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP;
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis;

my $n = $t->node(name => 'n', workers => 2, http => <<'EOF')->start;
    coord_store main { server %%REDIS%%; timeout 5s; connect_timeout 5s; }
    coord_limit_req_zone $arg_k zone=one:1m rate=1000000r/s;
    coord_limit_req_zone $arg_k zone=few:1m rate=100r/h algorithm=fixed_window;
    coord_limit_req_zone $arg_k zone=mem:1m rate=100r/h algorithm=fixed_window
                         store=local;
    coord_limit_req_zone $arg_k zone=slow:1m rate=1r/m;
    server {
        listen 127.0.0.1:%%PORT%%;
        location / { coord_limit_req zone=one burst=1000000 nodelay;
                     empty_gif; }
        location /few { coord_limit_req zone=few; empty_gif; }
        location /mem { coord_limit_req zone=mem; empty_gif; }
        location /slow { coord_limit_req zone=slow burst=5; empty_gif; }
    }
EOF


# a load in the background, of so many requests at least: its result is read
# from a pipe at the end

sub load {
    my ($path, $least) = @_;

    pipe(my $out, my $in) or die "pipe: $!";
    my $pid = fork();
    die "fork: $!" if !defined $pid;

    if ($pid == 0) {
        close $out;
        my ($stop, $sent, %n) = (0, 0);
        $SIG{TERM} = sub { $stop = 1 };

        while (!$stop || $sent < $least) {
            my @r = Coord::HTTP::parallel([map { $n->req($path) } 1 .. 10]);
            $sent += @r;
            $n{$_->status || "0 $_->{error}"}++ for @r;
        }

        print $in map { "$_ $n{$_}\n" } sort keys %n;
        close $in;
        require POSIX;
        POSIX::_exit(0);
    }

    close $in;
    $t->track($pid);

    return sub {
        kill 'TERM', $pid;
        local $/;
        my $text = <$out>;
        waitpid $pid, 0;
        return { $text =~ /^(.+) (\d+)$/mg };
    };
}


# 50 reloads

my $stop = load('/?k=load', 250);
my %old;

for (1 .. 50) {
    $old{$_} = 1 for $n->reload;
}

my $load = $stop->();
my $few = load('/few?k=reload', 150);
$old{$_} = 1 for map { $n->reload } 1 .. 3;
$few = $few->();
my $mem = load('/mem?k=reload', 150);
$old{$_} = 1 for map { $n->reload } 1 .. 3;
$mem = $mem->();

is_deeply([keys %$load], [200], '50 reloads under load: no request failed')
    or diag(explain($load));
cmp_ok($load->{200} || 0, '>', 200, 'there was a load');
is($few->{200}, 100, 'the limit holds over reloads');
is($mem->{200}, 100, 'the memory of a zone outlives a reload');
ok($n->wait_gone(15, keys %old), 'no old worker is left');
is(scalar $n->workers(all => 1), 2, 'two workers');


# a delayed request does not keep an old worker for ever, nor is it cut off

$n->get('/slow?k=x');
my $c = $n->connect;
$c->send("GET /slow?k=x HTTP/1.1\r\nHost: x\r\n\r\n");
ok($n->wait_log(qr/delaying request/, 5), 'a request is delayed');
my @waiting = $n->reload;
sleep(0.5);
ok((grep { kill 0, $_ } @waiting), 'its worker stays');
$c->close;
ok($n->wait_gone(10, @waiting), 'and leaves when it is gone');


# kill -9 under load

$n->allow(qr/exited on signal 9/);
$stop = load('/?k=kill', 250);

for (1 .. 5) {
    $n->kill_worker;
    sleep(0.2);
}

$load = $stop->();
my $failed = 0;
$failed += $load->{$_} for grep { $_ ne 200 } keys %$load;
cmp_ok($load->{200}, '>', 100, 'kill -9: requests go on');
cmp_ok($failed, '<=', 5 * 20, 'only those of the killed worker are lost');
is_deeply([map { $_->status } $n->parallel(20, '/mem?k=after')], [(200) x 20],
          'the memory of the zone is sound');
is((grep { $_->status == 200 } $n->parallel(200, '/mem?k=after2')), 100,
   'and exact');


# Redis away while nginx reloads

$redis->stop('KILL');
my @away = map { $n->reload } 1 .. 3;
is($n->get('/?k=down')->status, 200, 'a reload without Redis');
ok($n->wait_gone(10, @away), 'old workers leave without it, too');
$redis->run;
ok($t->wait_for(sub { $n->get('/few?k=back')->header('RateLimit') }, 10),
   'Redis is found again');


# SIGTERM with requests in flight

$redis->freeze;
my @c = map { $n->connect } 1 .. 20;
$_->send("GET /?k=term HTTP/1.1\r\nHost: x\r\n\r\n") for @c;
sleep(0.3);
$n->stop;
kill 'CONT', $redis->{pid};
pass('SIGTERM with requests in flight');


# a graceful stop

$n->start;
$n->get('/?k=quit');
ok($n->quit(10), 'a graceful stop ends');

# a configuration that takes longer to read than a connection may take: a worker
# connects at once all the same

my ($lines, $took) = (0, 0);
my $slow;

for my $try (1 .. 8) {
    open my $geo, '>', $t->dir . "/geo$try" or die $!;
    $lines = $lines ? 2 * $lines : 100_000;
    print $geo map { my $a = 0x0a000000 + 2 * $_;
                     join('.', unpack 'C4', pack 'N', $a) . "/32 $_;\n" }
               0 .. $lines - 1;
    close $geo;

    $slow = $t->node(name => "slow$try", http => <<"EOF");
    geo \$arg_k \$number { default 0; include %%TESTDIR%%/geo$try; }
    coord_store main { server %%REDIS%%; connect_timeout 500ms; }
    coord_limit_req_zone \$arg_k zone=one:1m rate=1r/h;
    server {
        listen 127.0.0.1:%%PORT%%;
        location / { coord_limit_req zone=one on_failure=closed; empty_gif; }
    }
EOF
    my $start = time;
    $slow->check;
    $took = time - $start;
    last if $took > 1;
}

cmp_ok($took, '>', 1, "a configuration of $lines lines");
$slow->start;
ok($t->wait_for(sub { $slow->get('/?k=' . rand)->status == 200 }, 20),
   'a worker of it decides');
$slow->reload;
ok($t->wait_for(sub { $slow->get('/?k=' . rand)->status == 200 }, 20),
   'and one after a reload');
unlike($slow->log, qr/handshake failed|connect.* failed/,
       'neither has had too little time to connect');

done_testing();
