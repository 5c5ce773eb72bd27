#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A decision on a bucket or a fixed window that is known to be there is one
# command, without a transaction; one nonce stands behind those of a turn of the
# event loop.  No reply goes to another request, and no key is left without a
# life, whatever happens between.

use strict;
use warnings;

use FindBin;
use Time::HiRes qw(sleep time);
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
my $redis = $t->redis;
my $fake = $t->fake_redis(upstream => $redis->{port});
my $r = $redis->connect;

my $n = $t->node(name => 'n', http => <<'EOF')->start;
    coord_store main { server %%FAKE%%; timeout 1s; connect_timeout 5s;
                       breaker failures=100000; }
    coord_limit_req_zone $arg_k zone=z:1m rate=1r/m;
    coord_limit_req_zone $arg_k zone=f:1m rate=10r/s;
    coord_limit_req_zone $arg_k zone=w:1m rate=10000r/h algorithm=fixed_window;
    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Status $coord_limit_req_status always;
        add_header X-Remaining $coord_limit_req_remaining always;
        location /z { coord_limit_req zone=z burst=9999 nodelay; empty_gif; }
        location /s { coord_limit_req zone=z burst=9 nodelay; empty_gif; }
        location /w { coord_limit_req zone=w; empty_gif; }
        location /w/back { coord_limit_req zone=w; coord_limit_req zone=f cost=9;
                           empty_gif; }
        location /f { coord_limit_req zone=f burst=1 nodelay; empty_gif; }
        location /none { return 204; }
    }
EOF

my ($worker) = $n->workers;
my @clients = map { $n->connect } 1 .. 30;
$_->request(path => '/none') for @clients;


# all in one turn of the event loop

sub together {
    my @paths = @_;

    $n->hold_worker($worker);
    $clients[$_]->send("GET $paths[$_] HTTP/1.1\r\nHost: a\r\n\r\n")
        for 0 .. $#paths;
    kill 'CONT', $worker;

    return map { $clients[$_]->response(timeout => 10) } 0 .. $#paths;
}


sub endless {
    return grep { $r->command('PTTL', $_) == -1 } @{$r->command('KEYS', '*')};
}


my @keys = map { sprintf 'key%02d', $_ } 0 .. 29;

# what is taken of them, where it stands, and a reply that nobody has asked for

my %kind = (
    bucket => { path => '/z', key => 'coord:rl:z:', use => ['u63', 60_000_000],
                other => [1, 1, 0, 9223372036854775807, 1000000,
                          2151876199255552000] },
    window => { path => '/w', key => 'coord:rf:w:', use => ['u32', 1],
                other => [4294960000, 77, 77] },
);

for my $kind (sort keys %kind) {
    one_command($kind, $kind{$kind});
    faults($kind, $kind{$kind});
    removed($kind, $kind{$kind});
}


# --- what is given back is no new window, though its count is zero ---

is($n->get('/w?k=back')->header('X-Remaining'), 9999, 'a window');
ok($t->wait_for(sub { $r->command('PTTL', 'coord:rf:w:{back}') < 3599_900 }, 10),
   'it lasts');
is($n->get('/w/back?k=back')->status, 429, 'refused by another limit');
$r->command('SET', 'coord:rf:w:{back}', "\0\0\0\0", 'KEEPTTL');

my $end = $r->command('PTTL', 'coord:rf:w:{back}');
my $again = $n->get('/w?k=back');

is($again->header('X-Remaining'), 9999, 'the first to count in it again');
cmp_ok($r->command('PTTL', 'coord:rf:w:{back}'), '<=', $end, 'has its end');
cmp_ok(reset_of($again), '<=', $end / 1000 + 1, 'and is told of that');


# --- a life is prolonged in time, and never cut ---

is($n->get('/z?k=long')->status, 200, 'a large bucket');
is($n->get('/s?k=long')->status, 200, 'a caller with a smaller burst');
cmp_ok($r->command('PTTL', 'coord:rl:z:{long}'), '>', 10_000_000,
       'does not shorten its life');

my ($least, $until) = (1e9, time + 60);
my $pexpire = 0;
my $watch = $redis->watch;

do {
    my $began = time;
    $n->get('/f?k=short');

    # what it was when that was decided, or more
    my $ttl = $r->command('PTTL', 'coord:rl:f:{short}')
              + 1000 * (time - $began);
    $least = $ttl if $ttl < $least;
    sleep 0.1;
    $pexpire += $watch->calls('pexpire', qr/^coord:rl:f:/);
} while ($pexpire < 2 && time < $until);

cmp_ok(time, '<', $until, 'a life is prolonged');
cmp_ok($least, '>', 200, 'before what is in it has drained');

done_testing();


# --- one command a decision ---

sub one_command {
    my ($kind, $it) = @_;
    my %used = map { $_ => 0 } qw(bitfield multi exec set pexpire pttl echo);

    is(scalar(grep { $_->status == 200 }
              together(map { "$it->{path}?k=$_" } @keys)), 30,
       "$kind: thirty new keys");

    # what only its own reply tells: the key of number n has used 40 n more

    $r->command('BITFIELD', "$it->{key}\{$keys[$_]}", 'INCRBY', $it->{use}[0],
                0, $_ * 40 * $it->{use}[1]) for 0 .. 29;

    my $watch = $redis->watch;
    my @got = together(map { "$it->{path}?k=$_" } @keys);
    $used{lc $_->[0]}++ for map { @$_ } $watch->seen;

    is($used{bitfield}, 30, "$kind: thirty decisions, thirty commands");
    is("@used{qw(multi exec set pexpire pttl)}", '0 0 0 0 0',
       "$kind: and none beside them");
    cmp_ok($used{echo}, '<=', 3, "$kind: of a few turns: $used{echo} nonces");
    is_deeply([judged(\@keys, @got)], [30], "$kind: each has its own answer");
}


# how many had their own answer, and those that had another's

sub judged {
    my ($asked, @got) = @_;

    my ($own, @wrong) = (0);

    for my $i (0 .. $#got) {
        my ($k) = $asked->[$i] =~ /(\d+)$/;
        my $g = $got[$i];

        if (!$g || $g->status != 200) {
            push @wrong, "key$k: no answer";
            next;
        }

        next if $g->header('X-Status') eq 'BYPASSED';

        my $left = $g->header('X-Remaining') + 40 * $k;

        # some places are taken, some have drained

        push @wrong, "key$k: $left" if abs($left - 9998) > 35;
        $own++;
    }

    return ($own, @wrong);
}


sub reset_of {
    my ($response) = @_;

    return ($response->header('RateLimit') =~ /;t=(\d+)/)[0];
}


# --- replies that are lost, doubled, or another's ---

sub faults {
    my ($kind, $it) = @_;
    my $other = join '', map { "$_\r\n" } '*' . @{$it->{other}},
                         map { ":$_" } @{$it->{other}};

    for my $fault ([drop => 'BITFIELD', {}],
                   [duplicate => 'BITFIELD', {}],
                   [before => 'BITFIELD', {data => $other}],
                   [after => 'BITFIELD', {data => $other}],
                   [drop => 'ECHO', {}],
                   [duplicate => 'ECHO', {}],
                   [replace => 'ECHO', {data => "\$16\r\n0123456789abcdef\r\n"}],
                   [close => 'BITFIELD', {offset => 10}],
                   [close => 'ECHO', {}],
                   [split => 'BITFIELD', {delay => 0}])
    {
        my ($action, $cmd, $how) = @$fault;
        my $name = "$kind: $action at $cmd";
        my $fired = $fake->fired($action);

        $fake->fault(action => $action, cmd => $cmd,
                     nth => $cmd eq 'ECHO' ? 1 : 7, %$how);

        my ($own, @wrong) = judged(\@keys, together(map { "$it->{path}?k=$_" }
                                                        @keys));

        is_deeply(\@wrong, [], "$name: nobody has another's answer");
        is($own, 30, "$name: all have theirs") if $action eq 'split';
        is($fake->fired($action) - $fired, 1, "$name: it was tried");

        $fake->clear;

        ok($t->wait_for(sub { ($own, @wrong)
                                  = judged(['key00'],
                                           $n->get("$it->{path}?k=key00"));
                              return $own && !@wrong }, 10), "$name: back");
    }

    is_deeply([endless()], [], "$kind: all keys have a life");
}


# the connections of the last ones

sub conn_of_fault { ($fake->entries(event => 'fault'))[-1]{conn} }

sub conn_of_take {
    my ($key) = @_;

    return (grep { $_->[2] eq $key } $fake->commands('BITFIELD'))[-1][0];
}


# --- keys that somebody has removed ---

sub removed {
    my ($kind, $it) = @_;
    my ($url, $key) = ("$it->{path}?k=gone", "$it->{key}\{gone}");

    is($n->get($url)->status, 200, "$kind: a key");
    $r->command('DEL', $key);
    is($n->get($url)->header('X-Remaining'), 9999, "$kind: is made anew");
    cmp_ok($r->command('PTTL', $key), '>', 0, "$kind: with a life");

    # the connection is cut when the command has made a key, or right after

    for my $fault ([close => 'ECHO'], [close => 'BITFIELD'], [close => 'MULTI'],
                   [stall => 'ECHO'])
    {
        my ($action, $cmd) = @$fault;
        my $name = "$kind: $action at $cmd";

        # it may hit what is sent again of those before, and nothing is made;
        # where it hits the question nobody has an answer

        my $told = 0;

        ok($t->wait_for(sub {
            $n->get($url)->header('X-Status') eq 'PASSED' or return;
            $n->get($url);

            $r->command('DEL', $key);
            $fake->fault(action => $action, cmd => $cmd);

            my $fired = $fake->fired;
            my $got = $n->get($url)->header('X-Status');

            $fake->clear;

            $told++ if $got ne 'BYPASSED' && $fake->fired > $fired
                       && conn_of_fault() == conn_of_take($key);

            return $got eq 'BYPASSED' && $r->command('EXISTS', $key);
        }, 20), "$name: a key that is made");

        is($told, 0, "$name: without an answer");

        ok($t->wait_for(sub { !endless() && $r->command('EXISTS', $key) }, 10),
           "$name: it has a life");
    }
}
