#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# The user of Redis: what it must be allowed, and a password that is changed
# while nginx runs.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Util qw(slurp spew);
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis;
my $admin = $redis->connect;
my $o = $t->origin;

# the rule as lua-free-scripts/README.md shows it, and no more than that

my ($rule) = slurp("$FindBin::Bin/../lua-free-scripts/README.md")
    =~ /^ *ACL (SETUSER app(?:.*\\\n)*.*)/m;
$rule =~ s/\\\n//g;

is($admin->command('ACL', split ' ', $rule), 'OK', 'the rule of the README');

my $pass = $t->file('pass');

sub password {
    my ($text) = @_;

    spew("$pass.new", "$text\n");
    chmod 0600, "$pass.new";
    rename "$pass.new", $pass or die "$pass: $!";
}

password('secret');

my $n = $t->node(name => 'n', http => <<'EOF')->start;
    coord_store main { server %%REDIS%%; username app;
                       password_file %%TESTDIR%%/pass; timeout 1s; connect_timeout 5s; }

    coord_limit_req_zone $arg_k zone=leaky:1m rate=1000r/s;
    coord_limit_req_zone $arg_k zone=sliding:1m rate=10r/m
                         algorithm=sliding_window;
    coord_limit_req_zone $arg_k zone=log:1m rate=10r/m algorithm=sliding_log;
    coord_limit_req_zone $arg_k zone=fixed:1m rate=10r/m algorithm=fixed_window;
    coord_limit_req_zone $arg_k zone=bucket:1m rate=1000r/s
                         algorithm=token_bucket;
    coord_limit_conn_zone $arg_k zone=conn:1m;
    coord_lock_zone $arg_k zone=lock:1m;
    coord_session_zone $arg_k zone=session:1m;

    server {
        listen 127.0.0.1:%%PORT%%;

        location / {
            coord_limit_req zone=leaky burst=10 nodelay;
            coord_limit_req zone=sliding;
            coord_limit_req zone=log;
            coord_limit_req zone=fixed;
            coord_limit_req zone=bucket burst=1000 nodelay;
            coord_limit_conn conn 1 wait=2s;
            coord_lock zone=lock wait=2s;
            coord_session zone=session bind=$remote_addr user=$arg_u
                          max_per_user=1 mismatch=reject;
            coord_on_failure closed;
            proxy_pass http://%%ORIGIN%%;
        }

        location /post {
            coord_idempotency required;
            coord_idempotency_scope off;
            coord_idempotency_wait 2s;
            coord_on_failure closed;
            proxy_pass http://%%ORIGIN%%;
        }

        location /status { coord_status; }
        location /health { coord_health; }
        location /api/ { coord_api write; }
    }
EOF


# all features, under exactly this user

ok($t->wait_for(sub { $n->get('/?k=0&u=0')->status == 200 }, 10),
   'all features are allowed');
is(scalar(grep { $_->status == 200 }
          $n->parallel(3, '/?k=1&u=1&delay=0.1')), 3, 'in line');
is($n->get('/?k=2&u=1')->status, 200, 'another session of a user');
is($n->get('/?k=1&u=1')->status, 403, 'ends the first');

my %head = (headers => { 'Idempotency-Key' => 'one' });
my @got = $n->parallel(3, '/post?delay=0.2', method => 'POST', body => 'b',
                       %head);
is(scalar(grep { $_->status == 200 } @got), 3, 'one run, two replays');
is($o->count('/post'), 1, 'and one execution');

for my $path (qw(limits/leaky/1 conns/conn/1 sessions/session/2 users/session/1
                 keys/leaky))
{
    my $r = $n->get("/api/$path");
    ok($r->status == 200 || $r->status == 404, "api: $path")
        or diag($r->status . ' ' . $r->body);
}

is($n->request('DELETE', '/api/limits/leaky/1')->status, 200, 'api: a reset');
is($n->request('DELETE', '/api/users/session/1')->status, 200,
   'api: a user is logged out');
ok($t->wait_for(sub { $n->get('/health')->status == 200 }, 5), 'health');

my $denied = $admin->command('ACL', 'LOG');
is(scalar(@$denied), 0, 'nothing was refused')
    or diag(join ' ', map { "@$_" } @$denied);
unlike($n->log, qr/NOPERM/, 'nor told to be');


# rotation: the file first, then the server

sub clients {
    return grep { /user=app / }
           split /\n/, $admin->command('CLIENT', 'LIST');
}

sub decided { return $n->get('/?k=' . rand() . '&u=' . rand)->status == 200 }

sub rotate {
    my ($new) = @_;

    $admin->command('ACL', 'SETUSER', 'app', 'resetpass', ">$new");
    $admin->command('CLIENT', 'KILL', 'USER', 'app');
}

password('second');
rotate('second');
ok($t->wait_for(sub { clients() >= 2 }, 20), 'a new password is read');
ok($t->wait_for(\&decided, 20), 'and all goes on');
ok($n->wait_log(qr/\[notice\] .*password read again from ".*pass"/, 3),
   'the log tells of it');
unlike($n->log, qr/\[emerg\]/, 'which is no alarm');


# the server first

$n->allow(qr/\[emerg\].*AUTH failed: WRONGPASS/);
rotate('third');
ok($n->wait_log(qr/\[emerg\].*AUTH failed: WRONGPASS/, 10),
   'the wrong password is told');
is($n->get('/?k=3')->status, 503, 'requests go by on_failure');
password('third');
my $began = $t->ran;
ok($t->wait_for(\&decided, 5), 'until the file is changed, too');
cmp_ok($t->ran - $began, '<', 4, 'and not much longer');


# no file at the moment; the old password serves

unlink $pass;
$admin->command('CLIENT', 'KILL', 'USER', 'app');
ok($t->wait_for(\&decided, 5), 'a file that is gone is not missed');

rotate('fourth');
ok($n->wait_log(qr/password cannot be read again from: .*pass/, 10),
   'until it is needed');
password('fourth');
ok($t->wait_for(\&decided, 5), 'back again');


# at reload, for what has been read before it

password('fifth');
$admin->command('ACL', 'SETUSER', 'app', 'resetpass', '>fifth');
my @old = $n->reload;
ok($n->wait_gone(10, @old), 'reload');
ok($t->wait_for(\&decided, 5), 'reads it as well');

unlike($n->log, qr/\b(?:secret|second|third|fourth|fifth)\b/,
       'no password in the log');


# it is the server that changes its mind

$admin->command('ACL', 'SETUSER', 'app', 'off');
$admin->command('CLIENT', 'KILL', 'USER', 'app');
ok($t->wait_for(sub { !decided() }, 10), 'a user who may not log in');
$t->rest(1.5);
$admin->command('ACL', 'SETUSER', 'app', 'on');
$began = $t->ran;
ok($t->wait_for(\&decided, 20), 'and may again');
cmp_ok($t->ran - $began, '<', 8, 'which is noticed');
$n->stop;


# what is refused for what it is says nothing of the server: no breaker opens

my $http = <<'EOF';
    coord_store main { server %%REDIS%%; username app; timeout 5s; connect_timeout 5s;
                       password_file %%TESTDIR%%/pass;
                       breaker failures=3 cooldown=1h; }

    coord_limit_req_zone $arg_k zone=log:1m rate=10r/m algorithm=sliding_log;
    coord_limit_req_zone $arg_k zone=bucket:1m rate=1000r/s;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Limit $coord_limit_req_status always;
        location /log { coord_limit_req zone=log; empty_gif; }
        location /bucket { coord_limit_req zone=bucket; empty_gif; }
    }
EOF

my $p = $t->node(name => 'p', http => $http)->start;

sub limit { return $p->get("/$_[0]?k=" . rand)->header('X-Limit') }

$p->allow(qr/\[emerg\].*NOPERM/);
ok($t->wait_for(sub { limit('log') eq 'PASSED' }, 10), 'allowed');

for my $case ([ 'zremrangebyrank', 'log', 'bucket' ],
              [ 'bitfield', 'bucket', 'log' ])
{
    my ($command, $refused, $other) = @$case;

    $admin->command('ACL', 'SETUSER', 'app', "-$command");
    is(limit($refused), 'BYPASSED', "no $command") for 1 .. 10;
    is(limit($other), 'PASSED', 'and another feature is served');
    $admin->command('ACL', 'SETUSER', 'app', "+$command");
    is(limit($refused), 'PASSED', "$command again");
}

unlike($p->log, qr/breaker opened/, 'no breaker has opened');


# what may not be told of changes any more is read each time

$p->stop;
$admin->command('ACL', 'SETUSER', 'app', '~val:*');
$admin->command('SET', 'val:1', 'a');

my $l = $t->node(name => 'l', http => <<'EOF')->start;
    coord_store main { server %%REDIS%%; username app; timeout 5s; connect_timeout 5s;
                       password_file %%TESTDIR%%/pass; }
    coord_lookup $value val:$arg_k default=none;

    server {
        listen 127.0.0.1:%%PORT%%;
        location / { add_header X-Value $value; empty_gif; }
    }
EOF

sub value_is {
    my ($value, $name) = @_;

    $admin->command('SET', 'val:1', $value);
    ok($t->wait_for(sub { $l->get('/?k=1')->header('X-Value') eq $value }, 5),
       $name);
}

value_is($_, "a value: $_") for 'a', 'b';
$admin->command('ACL', 'SETUSER', 'app', '-client|caching');
value_is($_, "without CLIENT CACHING: $_") for 'c', 'd';
ok($l->wait_log(qr/\[error\].*"val:1" are not told, .*NOPERM .*caching/, 5),
   'which is told');
$admin->command('ACL', 'SETUSER', 'app', '+client|caching');
value_is($_, "with it: $_") for 'e', 'f';
$l->stop;


# without ECHO nothing is certain, and it is told why

$p = $t->node(name => 'q', http => $http)->start;
ok($t->wait_for(sub { limit('log') eq 'PASSED' }, 10), 'another node');
$p->allow(qr/\[emerg\].*NOPERM/);

$admin->command('ACL', 'SETUSER', 'app', '-echo');
is(limit($_), 'BYPASSED', "no echo: $_") for ('log', 'bucket') x 3;
ok($p->wait_log(qr/NOPERM .*'echo'/, 5), 'the log names it');
unlike($p->log, qr/not of this call/, 'the stream is in order');
ok($p->wait_log(qr/breaker opened/, 5), 'and it is not asked on');

done_testing();
