#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# What the error log says of a store: the server's words, escaped and bounded,
# keys by their name, the beginning and the end of trouble, no line a request.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Util qw(spew);

my $t = Coord->new;
my $redis = $t->redis;


sub node {
    my ($name, $server, $more) = @_;

    return $t->node(name => $name, log_level => 'error', http => <<"EOC")->start;
    coord_store main { server $server; breaker failures=1000000; timeout 1s;
                       connect_timeout 5s; }
    coord_limit_req_zone \$arg_k zone=one:1m rate=1r/h;
    map \$arg_r \$rate { "" 1r/s; default "\e[31mno rate"; }
    coord_limit_req_zone \$arg_k zone=run:1m rate=\$rate;
    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Status \$coord_limit_req_status;
        location / { coord_limit_req zone=one; empty_gif; }
        location /rate { coord_limit_req zone=run; empty_gif; }
        location /closed { coord_limit_req zone=one on_failure=closed;
                           empty_gif; }
        location = /json { coord_status; }
    }
EOC
}


sub lines {
    my ($node, $what) = @_;

    return grep { /$what/ } split /\n/, $node->log;
}


# a key of another type

my $n = node('type', '%%REDIS%%');
my $conn = $redis->connect;
$t->wait_for(sub { ($n->get('/?k=' . rand)->header('X-Status') || '')
                   eq 'PASSED' }, 10);
$conn->command('LPUSH', 'coord:rl:one:{foreign}', 'x');
is($n->get('/?k=foreign')->header('X-Status'), 'BYPASSED', 'WRONGTYPE')
    for 1 .. 3;
ok($n->wait_log(qr/the key "coord:rl:one:\{foreign\}" of .*: WRONGTYPE Oper/,
                5), 'the key is named');
cmp_ok(scalar lines($n, qr/WRONGTYPE/), '<=', 2, 'not by each request');
like($n->get('/json?format=json')->body, qr/"error":3\b/,
     'and counted as operations that failed');


# values of clients

$n->get('/rate?k=1&r=x') for 1 .. 30;
ok($n->wait_log(qr/invalid rate "\\x1b\[31m/, 5), 'what a client sends is escaped');
unlike($n->log, qr/\e/, 'no control characters');
cmp_ok(scalar lines($n, qr/invalid rate/), '<=', 5, 'not a line a request');


# the server's words inside a transaction that is executed

my $fake = $t->fake_redis(on => {
    BITFIELD => sub {
        my ($id, $key) = @_;

        return "-NOPERM User app has no permissions\r\n" if $key =~ /noperm/;
        return "-ERR boo\x012026/01/01 [warn] 1#1: false \e[31m\""
               . 'x' x 5000 . "\r\n" if $key =~ /evil/;
        return "*3\r\n:0\r\n:0\r\n:0\r\n";
    },
});

$n = node('words', 'redis://' . $fake->addr);
$t->wait_for(sub { $fake->commands('TIME') }, 10);
is($n->get('/?k=evil')->header('X-Status'), 'BYPASSED', 'an error of the key');

# one that has no answer in time, on a busy machine, does not come so far

ok($t->wait_for(sub { $n->log_lines(qr/\QERR boo\x012026\E/)
                      || !$n->get('/?k=evil') }), 'its words are escaped');
unlike($n->log, qr/[\e\x01]/, 'no control characters');
my ($line) = lines($n, qr/ERR boo/);
cmp_ok(length $line, '<', 1000, 'the text is bounded');

$n->allow(qr/\[emerg\].*NOPERM/);
is($n->get('/?k=noperm')->header('X-Status'), 'BYPASSED', 'NOPERM at EXEC')
    for 1 .. 3;
ok($n->wait_log(qr/\[emerg\].*error reply: NOPERM User app has no/, 5),
   'is told as at any other time');
is(scalar lines($n, qr/NOPERM/), 1, 'once a minute');
my $json = $n->get('/json?format=json')->body;
like($json, qr/"auth":3\b/, 'and counts as such');


# a line end in a text is an error of the protocol to newer hiredis

my $liar = $t->fake_redis(on => {
    BITFIELD => sub { "-ERR boo\n2026/01/01 [warn] 1#1: false\r\n" },
});
$n = node('liar', 'redis://' . $liar->addr);
ok($t->wait_for(sub {
    $n->log_lines(qr/\QERR boo\x0a2026\E|bad reply: not a RESP2/)
    || !$n->get('/?k=line');
}), 'a line end is escaped, or refused');
unlike($n->log, qr/^2026\/01\/01/m, 'no line more');


# refused when connecting: the whole text

my $full = $t->fake_redis;
$full->fault(action => 'replace', cmd => 'CLIENT', times => 0,
             data => "-ERR max number of clients reached\r\n");
$n = node('full', 'redis://' . $full->addr);
ok($n->wait_log(qr/refused by the server: ERR max number of clients reached/,
                10), 'maxclients is named');


# the password is in no text

my $parrot = $t->fake_redis;
$parrot->fault(action => 'replace', cmd => 'AUTH', times => 0,
               data => "-ERR unknown command `AUTH`, s3cret is no argument\r\n");
$n = node('parrot', 'redis://:s3cret@' . $parrot->addr);
$n->allow(qr/\[emerg\].*AUTH failed/);
ok($n->wait_log(qr/AUTH failed: ERR\b/, 10), 'a server that repeats a password');
unlike($n->log, qr/s3cret/, 'is not repeated');


# a server that comes and goes faster than it is told: no more ends than
# beginnings, and the last line is an end

my $flap = $t->fake_redis(upstream => $redis->{port});
$n = node('flap', 'redis://' . $flap->addr);
my ($drops, @begins) = 0;

for (1 .. 10) {
    $t->wait_for(sub { ($n->get('/?k=' . rand)->header('X-Status') || '')
                       eq 'PASSED' }, 20);

    for (1 .. 5) {
        my $seen = () = $flap->commands('TIME');
        $flap->drop_all;
        $drops++;
        $t->wait_for(sub { $seen < (() = $flap->commands('TIME')) }, 20);
    }

    @begins = lines($n, qr/\[error\].*coord redis: (?!connected|breaker cl)/);
    last if $drops > @begins;
    $t->rest(3);
}

cmp_ok($drops, '>', @begins, 'a server that flaps is told by the second');
ok($t->wait_for(sub { ($n->get('/?k=' . rand)->header('X-Status') || '')
                      eq 'PASSED' }, 20), 'it is back');
my @ends = lines($n, qr/\[error\].*coord redis: connected again/);
cmp_ok(scalar @ends, '<=', scalar @begins, 'and so is its end');
like((lines($n, qr/coord redis: /))[-1], qr/again/, 'which is told last');


# a server that tells the time and refuses all else: the breaker opens and
# closes in vain, which is no end

my $loaded = $t->file('loaded');
my $loading = $t->fake_redis(on => {
    BITFIELD => sub {
        return -e $loaded
               ? "*3\r\n:0\r\n:0\r\n:0\r\n"
               : "-LOADING Redis is loading the dataset in memory\r\n";
    },
});
$t->set(LOADING => $loading->addr);
$n = $t->node(name => 'loading', http => <<'EOC')->start;
    coord_store main { server redis://%%LOADING%%; timeout 5s;
                       breaker failures=2 cooldown=50ms; }
    coord_limit_req_zone $arg_k zone=one:1m rate=1r/h;
    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Status $coord_limit_req_status;
        location / { coord_limit_req zone=one; empty_gif; }
    }
EOC

my $since = time;
$t->wait_for(sub {
    $n->parallel(5, '/?k=1');
    return time - $since > 3;
}, 20);

my $seconds = 1 + time - $since;
cmp_ok(scalar(() = $loading->commands('BITFIELD')), '>', 20,
       'it is asked again and again');

for my $what ('LOADING', 'breaker opened') {
    my @n = lines($n, qr/\[error\].*$what/);
    ok(@n >= 1 && @n <= $seconds, "$what: by the second, " . @n);
}

is(scalar lines($n, qr/breaker closed/), 0, 'it has not come to an end');

spew($loaded, '');
ok($t->wait_for(sub { $n->get('/?k=' . rand);
                      lines($n, qr/breaker closed/) }, 10), 'until it has');


# the beginning and the end

my $own = $t->redis;
$n = node('ends', '%%REDIS_2%%');
$t->wait_for(sub { ($n->get('/?k=' . rand)->header('X-Status') || '')
                   eq 'PASSED' }, 10);
is(join('', lines($n, qr/\[(?:warn|error|crit|alert|emerg)\]/)), '',
   'no news while all is well');
$own->stop;
ok($n->wait_log(qr/\[error\].*connection closed by the server/, 10), 'lost');
ok($n->wait_log(qr/\[error\].*connect\(\) failed.*\(111: /, 10), 'and why');

# what went by on_failure meanwhile

my ($open, $closed) = (0, 0);
my $until = time + 5;

while (time < $until) {
    my @r = $n->parallel(20, '/?k=1');
    $open += grep { $_->status == 200 } @r;
    @r = $n->parallel(5, '/closed?k=1');
    $closed += grep { $_->status == 503 } @r;
}

cmp_ok(scalar lines($n, qr/connect\(\) failed/), '<=', 1,
       'not at every attempt');
$own->run;
ok($n->wait_log(qr/\[error\].*coord redis: connected again after \d+ms/, 10),
   'the end is told at the level of the beginning');
ok($n->wait_log(qr/answers again/, 10), 'requests are decided again');
is(scalar lines($n, qr/\[error\].*again/), 2, 'each once');
is($n->get('/?k=after')->header('X-Status'), 'PASSED', 'decided');

my %told;
my $log = $n->log;
$told{$2} += $1 while $log =~ /(\d+) requests went by on_failure=(\w+), /g;
is_deeply(\%told, { open => $open, closed => $closed },
          'each request is in a number');
my @refused = lines($n, qr/refusing request, on_failure=closed/);
cmp_ok(scalar @refused, '<=', 8, 'and of who was refused: ' . @refused);
like($refused[-1], qr/, reason: \w+, \d+ requests/, 'with their number');
my @told = lines($n, qr/on_failure=open/);
cmp_ok(scalar @told, '<=', 8, 'a line a second: ' . @told);
like($told[-1], qr/store "main" has no answer: .*, reason: connect/, 'why');
like($n->log, qr/again, @{[$open + $closed]} requests went by on_failure in/,
     'the sum');


# a server that is silent has not answered, though nobody asks it any more

$n = node('silent', '%%REDIS_2%%');

my $passes = sub {
    $n->get('/?k=' . rand)->header('X-Status') eq 'PASSED';
};

ok($t->wait_for($passes, 20), 'it is asked');
$n->wait_log(qr/answers again/, 10) if lines($n, qr/has no answer/);
my $again = lines($n, qr/answers again/);

kill 'STOP', $own->{pid};
is($n->get('/?k=frozen')->header('X-Status'), 'BYPASSED', 'it is silent');
ok($n->wait_log(qr/has no answer/, 10), 'which is told');
$t->rest(2.5);
is(scalar lines($n, qr/answers again/), $again, 'and not its end');
kill 'CONT', $own->{pid};
ok($t->wait_for($passes, 20), 'it answers');
ok($t->wait_for(sub { lines($n, qr/answers again/) > $again }, 10),
   'and that is told');

done_testing();
