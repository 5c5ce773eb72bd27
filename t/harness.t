#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# The harness itself, with plain nginx: its checks are red when they should be.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP;
use Coord::Util qw(alive slurp spew wait_dead);

use IO::Socket::INET;

my $t = Coord->new;
my $origin = $t->origin(routes => {
    '/slow' => { delay => 0.3, body => 'slow' },
    '/parts' => { parts => [[0, 'a' x 10], [0.05, 'b' x 10]], chunked => 4 },
    '/cut' => { body => 'x' x 1000, close_at => 100 },
});

my $n = $t->node(name => 'n', workers => 2, plain => 1, http => <<'EOF');
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% http2;

        location / { return 200 "hello $remote_addr\n"; }
        location /origin/ { proxy_pass http://%%ORIGIN%%/; }
        location /head { add_header X-A 1; add_header X-A 2; empty_gif; }
    }
EOF


# configuration

ok($n->check, 'nginx -t accepts');
like($t->conf_error(plain => 1, http => 'no_such_directive on;'),
     qr/unknown directive "no_such_directive"/, 'nginx -t refuses');
is($t->conf_error(plain => 1, server => 'location / { return 204; }'), '',
   'conf_error of a good configuration');
eval { $t->node(plain => 1, http => '%%NOTHING%%') };
like($@, qr/%%NOTHING%%/, 'an unknown token is an error');


# processes

$n->start;
my @first = $n->workers;
is(scalar @first, 2, 'two workers');

my @old = $n->reload;
is_deeply([sort @old], [sort @first], 'reload returns the old workers');
ok($n->wait_gone(10, @old), 'old workers leave');
is(scalar $n->workers, 2, 'two workers again');

my $dead = $n->kill_worker;
ok(!alive($dead), 'worker is dead');
is(scalar $n->workers, 2, 'it has a successor');

my ($before, $after) = $n->upgrade;
ok(alive($before) && alive($after), 'two masters');
kill 'QUIT', $before;
ok(wait_dead(10, $before), 'old master leaves');
is($n->get('/')->status, 200, 'the new binary serves');


# client

my $r = $n->get('/', local => '127.0.0.7');
is($r->status, 200, 'status');
is($r->body, "hello 127.0.0.7\n", 'body, local address');
is_deeply($n->get('/head')->{headers}{'x-a'}, [1, 2], 'repeated header');
is($n->get('/head')->header('X-A'), '1, 2', 'joined header');
ok($n->get('/head')->{complete}, 'complete');
is($n->request('HEAD', '/head')->body, '', 'HEAD has no body');

my @all = $n->parallel(200, '/');
is(scalar(grep { $_->status == 200 && $_->{complete} } @all), 200,
   '200 requests at once');

my $c = $n->connect;
is($c->request(path => '/')->status, 200, 'kept alive, first');
is($c->request(path => '/head')->header('Content-Type'), 'image/gif',
   'kept alive, second');
$c->send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /head HTTP/1.1\r\nHost: a\r\n"
         . "\r\n");
is($c->response->body, "hello 127.0.0.1\n", 'pipelined, first');
is($c->response->status, 200, 'pipelined, second');
is($c->read(0.1), undef, 'nothing more');
$c->send("GET / HTTP/1.0\r\n\r\n");
ok($c->closed, 'closed by the server');

is(Coord::HTTP::request(port => Coord::Util::free_port())->status, 0,
   'no server: status 0');

SKIP: {
    skip 'no curl', 2 if system('curl --version >/dev/null 2>&1') != 0;

    local $n->{ports}{PORT} = $n->port(2);
    my $h2 = $n->h2('/');

    is($h2->status, 200, 'HTTP/2');
    is($h2->body, "hello 127.0.0.1\n", 'HTTP/2 body');
}


# origin

$r = $n->post('/origin/x', "one\ntwo");
is($r->status, 200, 'proxied');
is(($origin->requests('/x'))[0]{body}, "one\ntwo", 'origin logs the body');
is($n->get('/origin/parts')->body, 'a' x 10 . 'b' x 10, 'chunked origin');
is($n->get('/origin/y?status=503&size=3')->body, 'xxx', 'answer by query');
ok(!$n->get('/origin/cut')->{complete}, 'truncated answer is not complete');

$n->parallel(20, '/origin/slow');
is($origin->count('/slow'), 20, 'executions are counted');
cmp_ok($origin->overlap('/slow'), '>', 1, 'overlap is seen');

$c = $n->connect;
$c->send(Coord::HTTP::format(path => '/origin/z?delay=5'));
ok($t->wait_for(sub { $origin->count('/z') }), 'a slow request runs');
$c->reset;
ok($t->wait_for(sub { $origin->aborted }), 'its client is gone');


# real Redis: nothing is left of it, and what it stored is there after run()

for my $stop ('', '$s->stop', '$s->stop("KILL"); $s->run') {
    open(my $fh, '-|', $^X, '-I', "$FindBin::Bin/lib", '-MCoord::Redis', '-e',
         "\$s = Coord::Redis->start; print \$s->{dir}; $stop") or die;
    my $dir = <$fh>;
    close $fh;

    like($dir, qr{coord-redis-\w+$}, "a server of its own: $stop");
    ok(!-e $dir, 'its directory is gone');
}

my $redis = $t->redis('appendonly yes', 'appendfsync always');
$redis->connect->command('SET', 'k', 'v');
$redis->stop('KILL');
$redis->run;
is($redis->connect->command('GET', 'k'), 'v', 'with its data again');


# fake Redis

my $fake = $t->fake_redis(password => 'secret');
is($t->vars->{FAKE}, 'redis://127.0.0.1:' . $fake->port, '%%FAKE%%');

sub ask {
    my ($bytes, $wait) = @_;

    my $s = Coord::HTTP::Conn->new(port => $fake->port);
    $s->send($bytes);
    my ($in, $part) = ('');

    while (defined($part = $s->read($wait || 0.2)) && $part ne '') {
        $in .= $part;
    }

    return wantarray ? ($in, !defined $part) : $in;
}

my $auth = "AUTH secret\n";

like(ask("PING\n"), qr/^-NOAUTH/, 'NOAUTH');
like(ask("AUTH wrong\n"), qr/^-WRONGPASS/, 'WRONGPASS');
is(ask("${auth}ECHO abc\n"), "+OK\r\n\$3\r\nabc\r\n", 'ECHO');
is(ask("${auth}MULTI\nECHO a\nZADD k 1 b\nEXEC\n"),
   "+OK\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n\$1\r\na\r\n:1\r\n", 'EXEC');
like(ask("${auth}TIME\n"), qr/\*2\r\n\$10\r\n\d+\r\n\$\d\r\n\d+\r\n\z/,
     'TIME');

my %expect = (
    drop => ["+OK\r\n+PONG\r\n"],
    duplicate => ["+OK\r\n\$1\r\na\r\n\$1\r\na\r\n+PONG\r\n"],
    replace => ["+OK\r\n\xff\0\r\n+PONG\r\n", data => "\xff\0\r\n"],
    before => ["+OK\r\n:7\r\n\$1\r\na\r\n+PONG\r\n", data => ":7\r\n"],
    after => ["+OK\r\n\$1\r\na\r\n:7\r\n+PONG\r\n", data => ":7\r\n"],
    split => ["+OK\r\n\$1\r\na\r\n+PONG\r\n"],
    delay => ["+OK\r\n\$1\r\na\r\n+PONG\r\n", delay => 0.05],
    stall => ["+OK\r\n"],
    close => ["+OK\r\n\$1", offset => 2],
);

for my $action (sort keys %expect) {
    my ($want, %how) = @{$expect{$action}};

    $fake->clear;
    $fake->fault(action => $action, cmd => 'ECHO', %how);

    my ($got, $open) = ask("${auth}ECHO a\nPING\n");

    is($got, $want, "fault $action");
    is($fake->fired($action), 1, "fault $action is in the journal");
    is($open, $action ne 'close', "fault $action: connection");
}

$fake->clear;
$fake->fault(action => 'drop', cmd => 'ECHO', nth => 2);
is(ask("${auth}ECHO a\nECHO b\nECHO c\n"),
   "+OK\r\n\$1\r\na\r\n\$1\r\nc\r\n", 'the second one only');
is_deeply(($fake->commands('ECHO'))[-1][2], 'c', 'commands are in the journal');

my $proxy = $t->fake_redis(upstream => $fake->port);
$proxy->fault(action => 'duplicate', cmd => 'PING');
my $s = Coord::HTTP::Conn->new(port => $proxy->port);
$s->send("*2\r\n\$4\r\nAUTH\r\n\$6\r\nsecret\r\nPING\r\n");
my $in = '';
$t->wait_for(sub { $in .= $s->read(0.05) || ''; length $in >= 19 }, 5);
is($in, "+OK\r\n+PONG\r\n+PONG\r\n", 'proxy with a fault');
$proxy->drop_all;
ok($s->closed, 'drop_all');


# the checks at the end: each of these tests must fail

sub red {
    my ($name, $code, $like, $status) = @_;

    my $file = $t->file("$name.t");

    spew($file, "use lib '$FindBin::Bin/lib'; use Coord;\n"
                . "my \$t = Coord->new;\n"
                . "my \$n = \$t->node(plain => 1, server => '')->start;\n"
                . "print STDERR 'pid=', \$n->pid, \"\\n\";\n"
                . "sub plant { open my \$f, '>>', \$n->file('error.log');"
                . " print \$f \"2026/01/01 00:00:00 \$_[0]\\n\" }\n"
                . "ok(1, 'ran');\n$code\n");

    delete local $ENV{HARNESS_ACTIVE};
    my $out = `$^X $file 2>&1`;
    my $rc = $? == 0 ? 'green' : 'red';

    is($rc, $status || 'red', "$name: $rc") or diag($out);
    like($out, $like, "$name: says why");

    my ($pid) = $out =~ /pid=(\d+)/;
    ok($pid && !alive($pid), "$name: leaves no nginx behind");
}

red('clean', 'done_testing();', qr/^ok 3 - no alerts/m, 'green');
red('alert', 'plant("[alert] 1#1: trouble"); done_testing();',
    qr/^not ok 3 - no alerts.*trouble/ms);
red('crit', 'plant("[crit] 1#1: trouble"); done_testing();', qr/trouble/);
red('emerg', 'plant("[emerg] 1#1: trouble"); done_testing();', qr/trouble/);
red('asan', 'plant("ERROR: AddressSanitizer: heap"); done_testing();',
    qr/AddressSanitizer/);
red('asan_file', 'Coord::Util::spew($n->file("sanitizer.1"), "ERROR: '
    . 'Sanitizer x\n"); done_testing();', qr/Sanitizer x/);
red('ubsan', 'plant("a.c:1:2: runtime error: shift"); done_testing();',
    qr/runtime error/);
red('socket', 'plant("[alert] 1#1: *1 open socket #3 left"); done_testing();',
    qr/open socket/);
red('allowed', '$n->allow(qr/trouble/); plant("[alert] 1#1: trouble");'
    . 'done_testing();', qr/^ok 3/m, 'green');
red('killed', '$n->kill_worker; done_testing();', qr/^ok 3/m, 'green');
red('crashed', 'my ($w) = $n->workers; kill "ABRT", $w;'
    . '$n->wait_log(qr/exited on signal 6/); done_testing();',
    qr/exited on signal 6/);
red('undone', 'plant("[alert] 1#1: trouble");', qr/trouble/);
red('other_done', 'plant("[alert] 1#1: trouble");'
    . 'Test::More::done_testing();', qr/trouble/);
red('died', 'die "in the middle\n";', qr/in the middle/);
red('stuck', 'my $pid; { local $SIG{TERM} = "IGNORE"; $pid = fork();'
    . ' if (!$pid) { sleep 30; POSIX::_exit(0) } }'
    . ' push @{$n->{masters}}, $pid;'
    . '$n->{stop_timeout} = 1; done_testing();',
    qr/^not ok 2 - all processes.*had to be killed/ms);
red('limit', 'alarm 1; sleep 20; done_testing();', qr/time limit/);


# a machine that stands still: what fails meanwhile runs once more, and nothing
# else does

sub again {
    my ($name, $code) = @_;

    my $file = $t->file("$name.t");

    spew($file, "use lib '$FindBin::Bin/lib'; use Coord;\n"
                . "my \$t = Coord->new;\n"
                . "open(my \$runs, '>>', '$file.runs'); syswrite(\$runs, '.');\n"
                . "my \$first = -s '$file.runs' == 1;\n"
                . "sub still { kill 'STOP', Coord::Clock::pid();"
                . " Time::HiRes::sleep(\$_[0]);"
                . " kill 'CONT', Coord::Clock::pid();"
                . " my \$beats = Coord::Clock::ran() + 0.025;"
                . " Time::HiRes::sleep(0.01)"
                . " while Coord::Clock::ran() < \$beats }\n"
                . "$code\ndone_testing();\n");

    local $ENV{HARNESS_ACTIVE} = 1;
    my $out = `$^X $file 2>/dev/null`;

    return ($? >> 8, -s "$file.runs", $out);
}

my ($status, $runs, $out) = again('still', 'still(1.5) if $first;'
                                           . ' ok(!$first, "here");');
is("$status $runs", '0 2', 'it passes when the machine does not stand still');
like($out, qr/^# the machine .* 1\.\d s .*: once more\n(?:# first run: .*\n)+ok 1/,
     'it says so');
unlike($out, qr/^not ok/m, 'and what the first run said is a comment');

($status, $runs) = again('both', 'still(1.5); ok(0);');
is("$status $runs", '1 2', 'twice at most');
($status, $runs) = again('short', 'still(0.3); ok(0);');
is("$status $runs", '1 1', 'not for a moment');
($status, $runs) = again('passed', 'still(1.5); ok(1);');
is("$status $runs", '0 1', 'not when it passes');
($status, $runs) = again('dead', 'still(1.5) if $first; die if $first; ok(1);');
is("$status $runs", '0 2', 'a test that dies');
($status, $runs) = again('signal', 'kill "KILL", $$;');
is("$status $runs", '137 1', 'one that is killed');

done_testing();
