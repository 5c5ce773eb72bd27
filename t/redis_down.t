#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Redis absent, killed, frozen, refusing, overloaded, and back again: traffic
# flows, as on_failure says, and nothing needs a reload.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Util qw(spew);
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis;
$redis->stop;

my $n = $t->node(name => 'n', workers => 2, http => <<'EOF')->start;
    log_format s '$request_uri $coord_limit_req_status $coord_limit_req_source';
    access_log %%NODEDIR%%/access.log s;

    coord_store main { server %%REDIS%%; timeout 100ms;
                       breaker failures=5 cooldown=200ms; }

    coord_limit_req_zone $arg_k zone=one:1m rate=1r/h;

    server {
        listen 127.0.0.1:%%PORT%%;
        location /open { coord_limit_req zone=one; empty_gif; }
        location /closed { coord_limit_req zone=one on_failure=closed;
                           empty_gif; }
        location /local { coord_on_failure local; coord_limit_req zone=one;
                          empty_gif; }
        location /dry { coord_limit_req_dry_run on;
                        coord_limit_req zone=one on_failure=closed;
                        empty_gif; }
        location /none { empty_gif; }
    }
EOF


sub statuses {
    my ($count, $path) = @_;

    my %n;
    $n{$_->status}++ for $n->parallel($count, $path);

    return \%n;
}


# absent at the start

my $start;
my $began = time;
is_deeply(statuses(20, '/open?k=a'), { 200 => 20 }, 'absent: open');
my $r = $n->get('/closed?k=a');
is($r->status, 503, 'absent: closed');
ok($r->header('Retry-After'), 'closed: Retry-After');
is($r->header('Content-Type'), 'application/problem+json', 'closed: problem');
like($r->body, qr/"code":"store-unavailable"/, 'closed: code');
is($n->get('/dry?k=a')->status, 200, 'closed, dry run');
is_deeply(statuses(20, '/local?k=a'), { 200 => 1, 429 => 19 },
          'absent: the memory of the node, over both workers');
ok(!defined $n->get('/open?k=a')->header('RateLimit'),
   'no RateLimit field without a verdict');
is($n->get('/local?k=b')->header('RateLimit-Policy'), '"one";q=1;w=3600',
   'but for the verdict of the memory');
$t->wait_for(sub { $n->access_log =~ /^\/local\?k=b PASSED fallback$/m }, 5);
like($n->access_log, qr/^\/open\?k=a BYPASSED -$/m, 'open: BYPASSED');
like($n->access_log, qr/^\/local\?k=a REJECTED fallback$/m,
     'local: source fallback');

statuses(200, '/open?k=c');
my $errors = () = $n->log =~ /\[error\][^\n]*coord redis/g;
cmp_ok($errors, '<=', 2 * 2 * (3 + time - $began),
       'a line a second for each class and worker, not one a request');


# back

$redis->run;
ok($t->wait_for(sub { $n->get('/open?k=' . rand)->header('RateLimit') }, 10),
   'Redis is used as soon as it is there, without a reload');
ok($t->wait_for(sub {
    my @r = $n->parallel(8, '/open?k=' . rand);
    return 1 == grep { $_->status == 200 } @r;
}, 10), 'by both workers');


# killed with requests in flight

$redis->freeze;
my @pending = map { $n->connect } 1 .. 500;
$_->send("GET /open?k=kill HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    for @pending;
kill 'KILL', $redis->{pid};
my @answers = map { $_->response(timeout => 10) } @pending;
is(scalar(grep { $_ && $_->status == 200 } @answers), 500,
   'killed with 500 requests in flight: all are served');
is_deeply(statuses(50, '/open?k=dead'), { 200 => 50 }, 'dead: open');
is_deeply(statuses(50, '/local?k=dead'), { 200 => 1, 429 => 49 },
          'dead: local');

$redis->stop('KILL');
$redis->run;

sub recovered {
    return $t->wait_for(sub {
        my @r = $n->parallel(8, '/open?k=' . rand);
        return 1 == grep { $_->status == 200 } @r;
    }, 10);
}

ok(recovered(), 'back again');


# frozen: a bounded wait, then none

$redis->freeze;
$start = $t->ran;
is($n->get('/open?k=frozen')->status, 200, 'frozen: open');
cmp_ok($t->ran - $start, '<', 2, 'within the timeout and slack');

statuses(40, '/open?k=frozen');
$start = $t->ran;
is_deeply(statuses(100, '/open?k=frozen'), { 200 => 100 },
          'frozen, breaker open: open');
my $wait = $t->ran - $start;
$start = $t->ran;
statuses(100, '/none');
my $none = $t->ran - $start;
cmp_ok($wait, '<', $none + 1, 'no request waits while the breaker is open');

sleep(1);
kill 'CONT', $redis->{pid};
ok(recovered(), 'thawed: back without a reload');


# a full queue: what is above it goes on at once

my $fake = $t->fake_redis;
$t->set(FAKE_MAX => $fake->addr);

my $q = $t->node(name => 'q', http => <<'EOF')->start;
    log_format s '$coord_limit_req_status';
    access_log %%NODEDIR%%/access.log s;
    coord_store main { server %%FAKE%%; timeout 2s; max_pending 10;
                       breaker failures=1000; }
    coord_limit_req_zone $arg_k zone=one:1m rate=1r/h;
    server { listen 127.0.0.1:%%PORT%%;
             location / { coord_limit_req zone=one; empty_gif; } }
EOF

ok($t->wait_for(sub { $fake->commands('TIME') }, 5), 'connected');
$fake->fault(action => 'stall', cmd => 'MULTI');
$start = time;
my @wait = map { $q->connect } 1 .. 100;
$_->send("GET /?k=q HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    for @wait;
my @done = map { $_->response(timeout => 10) } @wait;
is(scalar(grep { $_ && $_->status == 200 } @done), 100, 'all are served');
ok($t->wait_for(sub { my $x = () = $q->access_log =~ /BYPASSED/g;
                      $x == 100 }, 5), 'all bypassed');
ok($q->wait_log(qr/max_pending|overflow|in flight/i, 5), 'overflow is logged');
my @multi = $fake->commands('MULTI');
cmp_ok(scalar @multi, '<=', 10, 'ten calls were sent, no more');


# however long it has been away: an attempt a second, no more and no fewer, by
# each of two connections, one of which listens

my $hangup = $t->fake_redis;
$hangup->fault(action => 'close', offset => 0, times => 0);
$t->set(HANGUP => $hangup->addr);

my $h = $t->node(name => 'hangup', http => <<'EOF')->start;
    coord_store main { server redis://%%HANGUP%%; connect_timeout 5s; }
    coord_limit_req_zone $arg_k zone=one:1m rate=1r/h;
    server { listen 127.0.0.1:%%PORT%%;
             location / { coord_limit_req zone=one; empty_gif; } }
EOF

sub attempts { return scalar $hangup->entries(event => 'accept') }

$t->wait_for(sub { attempts() >= 1 }, 10);
$t->rest(7);
my $before = attempts();
my $since = time;
$t->rest(6);
my $attempts = attempts() - $before;
my $took = time - $since;
$h->stop;

cmp_ok($attempts, '>=', 9, "$attempts attempts in six seconds or more");
cmp_ok($attempts, '<=', 2 * $took + 3, 'and not more');


# a wrong password: open, told, never shown

my $auth = $t->redis('requirepass right-one');
spew($t->file('wrong'), "wr0ng-secret\n");
chmod 0600, $t->file('wrong');
$t->set(AUTH_PORT => $auth->{port});

my $w = $t->node(name => 'w', log_level => 'debug', http => <<'EOF')->start;
    coord_store main { server redis://127.0.0.1:%%AUTH_PORT%%;
                       password_file %%TESTDIR%%/wrong; }
    coord_limit_req_zone $arg_k zone=one:1m rate=1r/h;
    server { listen 127.0.0.1:%%PORT%%;
             location / { coord_limit_req zone=one; empty_gif; } }
EOF

$w->allow(qr/\[emerg\].*(?:AUTH|password|WRONGPASS|NOAUTH|refused)/i);
is($w->get('/?k=w')->status, 200, 'wrong password: open') for 1 .. 3;
ok($w->wait_log(qr/\[emerg\].*WRONGPASS|\[emerg\].*auth/i, 5),
   'wrong password: emerg');
sleep(1.5);
my $emerg = () = $w->log =~ /\[emerg\]/g;
cmp_ok($emerg, '<=', 1, 'once a minute at most');
unlike($w->log, qr/wr0ng-secret/, 'the password is not in the log');

done_testing();
