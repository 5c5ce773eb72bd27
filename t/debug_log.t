#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# With "error_log ... debug" nginx reads what our events and timers are about
# as connections, to log their descriptors: every feature on both stores, its
# waits and renewals, Redis that goes away and comes back, the recovery of what
# a killed worker held, and the end of a worker.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP;

my $t = Coord->new(log_level => 'debug');
my $redis = $t->redis;
my $origin = $t->origin(routes => {
    '/hold' => { delay => 60 }, '/slow' => { delay => 1.2 },
    '/longer' => { delay => 3 },
    '/*' => { body => 'x' },
});

my $http = <<'EOF';
    coord_store redis { server %%REDIS%%; timeout 2s; connect_timeout 5s;
                        breaker failures=2 cooldown=100ms; }
    coord_store memory { }
    coord_limit_conn_status 429;
    proxy_read_timeout 100s;
EOF

my $server = <<'EOF';
        location = /health { coord_health; }
        location = /status { coord_status; }
        location /api/ { coord_api write; }
EOF

for my $s (qw(redis memory)) {
    $http .= <<"EOF";
    coord_limit_req_zone \$arg_k zone=$s:1m rate=5r/s store=$s;
    coord_limit_conn_zone \$arg_k zone=$s:1m lease=1s store=$s;
    coord_lock_zone \$arg_k zone=$s:1m lease=1s store=$s;
    coord_session_zone \$arg_k zone=$s:1m ttl=1m store=$s;
    coord_session_zone \$arg_k zone=${s}_used:1m ttl=2s store=$s;
EOF
    $server .= <<"EOF";
        location = /$s/req { coord_limit_req zone=$s burst=5; empty_gif; }
        location = /$s/hold { coord_limit_conn $s 1; coord_lock zone=$s;
                              proxy_pass http://%%ORIGIN%%/hold; }
        location = /$s/conn { coord_limit_conn $s 1 wait=10s; empty_gif; }
        location = /$s/lock { coord_lock zone=$s wait=10s; empty_gif; }
        location = /$s/session { coord_session zone=$s bind=\$arg_b;
                                 empty_gif; }
        location = /$s/used { coord_session zone=${s}_used bind=\$arg_b;
                              proxy_pass http://%%ORIGIN%%/longer; }
        location = /$s/key {
            coord_idempotency required;
            coord_idempotency_scope off;
            coord_idempotency_store $s;
            coord_idempotency_lease 1s;
            coord_idempotency_wait 5s;
            proxy_pass http://%%ORIGIN%%/slow;
        }
EOF
}

my $n = $t->node(name => 'n', workers => 2, http => <<"EOF")->start;
$http
    server {
        listen 127.0.0.1:%%PORT%%;
$server
    }
EOF

$n->allow(qr/exited on signal 9/);

sub crashes { scalar $n->log_lines(qr/exited on signal (?!9\b)/) }

sub statuses { join ' ', map { $_->status } @_ }

sub open_request {
    my ($path) = @_;
    my $c = $n->connect;
    $c->send(Coord::HTTP::format(path => $path));
    return $c;
}

if (!$t->wait_for(sub { $n->log_lines(qr/\[debug\]/) }, 1)) {
    plan(skip_all => 'nginx without --with-debug');
}


for my $s (qw(redis memory)) {
    ok($t->wait_for(sub { statuses(map { $n->get("/$s/session?k=0&b=$_") }
                                   1, 2, 2, 2) eq '200 403 403 403' }, 20),
       "$s: the store answers");
    is(statuses($n->parallel(3, "/$s/req?k=1")), '200 200 200',
       "$s: delayed requests");
    is(statuses($n->get("/$s/session?k=1&b=1"),
                $n->get("/$s/session?k=1&b=2")), '200 403', 'a session');
    is(statuses($n->get("/$s/used?k=1&b=1"),
                $n->get("/$s/used?k=1&b=2")), '200 403', 'a session in use');

    my @twins = $t->parallel([map {
        $n->req("/$s/key", method => 'POST', body => 'x',
                headers => { 'Idempotency-Key' => 'one' })
    } 1 .. 2]);

    is(statuses(@twins), '200 200', 'a twin that waits, a renewal');

    # one holds, one waits

    my $held = () = $origin->requests('/hold');
    my @hold = map { open_request("/$s/hold?k=$_") } 1 .. 4;
    ok($t->wait_for(sub { (() = $origin->requests('/hold')) == $held + 4 }, 10),
       'places and locks are held');

    my @wait = map { open_request("/$s/conn?k=$_"),
                     open_request("/$s/lock?k=$_") } 1 .. 2;
    sleep 1;
    $_->close for @hold[0, 1];

    is(statuses(map { $_->response(timeout => 10) } @wait),
       '200 200 200 200', 'who waits has its turn after renewals');

    $n->kill_worker('KILL', $_) for $n->workers;

    ok($t->wait_for(sub { statuses(map { $n->get("/$s/conn?k=$_") } 3, 4)
                          eq '200 200' }, 10),
       'what killed workers held is free');
    is(crashes(), 0, 'nobody died of anything else');
}

is(statuses(map { $n->get($_) } '/health', '/status?format=json',
            '/api/limits/redis/1'), '200 200 200', 'the views');


# Redis goes away and comes back

my $hold = open_request('/redis/hold?k=5');
ok($t->wait_for(sub { $origin->connections }, 10), 'a place is held');
$redis->stop('KILL');

$n->parallel(8, "/redis/$_?k=6") for qw(req conn lock session);
$hold->close;

$redis->run;
ok($t->wait_for(sub { $n->get('/health')->status == 200 }, 10),
   'Redis is back');
my $k = 1;
ok($t->wait_for(sub { $k++;
                      statuses($n->get("/redis/session?k=$k&b=1"),
                               $n->get("/redis/session?k=$k&b=2"))
                      eq '200 403' }, 10), 'and answers');


# the end of a worker that holds one

$hold = open_request('/redis/hold?k=7');
ok($t->wait_for(sub { $origin->connections }, 10), 'a place is held');
my @old = $n->reload;
$hold->close;
ok($n->wait_gone(20, @old), 'old workers go');
is($n->get('/redis/conn?k=7')->status, 200, 'its place is free');
is(crashes(), 0, 'no worker died');

done_testing();
