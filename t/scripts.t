#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# The operations of lua-free-scripts/, each as it stands in its file, against
# a real Redis and under an ACL user without scripting.

use strict;
use warnings;

use FindBin;
use POSIX ();
use Test::More;

use lib "$FindBin::Bin/lib";
use Coord::Redis;

my $dir = "$FindBin::Bin/../lua-free-scripts";
my $table = "$FindBin::Bin/../ngx_coord_module/base/ngx_coord_script_table.h";
my ($now, $msec) = (1_700_000_000_000_000_000, 1_000_000);
my $max = 9_223_372_036_854_775_807;
my $zero = "\0" x 4;
# GCRA: microseconds, between two requests, and an empty bucket at now
my ($u, $usec, $class) = (10_000, 26_000_000_000_000, 777);
my $at = ($class << 51) + $usec;

my $server = Coord::Redis->start();
my $admin = $server->connect(die => 1);
my @acl = readme_acl();

is($admin->command('ACL', @acl), 'OK', 'ACL rule of the README');

my $redis = client();
my %script = map { m{([^/]+)\.redis$} ? ($1 => script($_)) : () }
             glob "$dir/*.redis";
my %called;

like($redis->command('EVAL', 'return 1', 0), qr/^NOPERM/, 'no scripting');


# --- GCRA ---

{
    my $granted = together('gcra_open', sub { opened(5) },
                           sub { $_[0][1][7] });
    is($granted, 6, 'bucket: burst 5 admits 6 of 20 at once, who make it');
    ttl_at_least('{k}', 50);

    clear();
    run('gcra_open', opened(5));
    $granted = together('gcra_take', sub { bucket(5) },
                        sub { $_[0][0][3] });
    is($granted, 5, 'bucket: and 5 more if it is there');

    my $before = dump_of('{k}');
    is(run('gcra_take', bucket(5))->[0][3], undef, 'bucket: refused');
    is(run('gcra_open', opened(0))->[1][7], undef, 'bucket: refused');
    is(run('gcra_take', bucket(0))->[0][2], 6 * $u, 'bucket: what it found');
    is(run('gcra_take', bucket(0))->[0][0], 7, 'bucket: the last caller');
    is(run('gcra_open', opened(0))->[1][3], 6, 'bucket: the largest capacity');
    is(dump_of('{k}'), $before, 'bucket: a refused caller leaves no trace');

    run('gcra_give', k => '{k}', minus_refund => -$u, ttl => 60_000);
    ok(run('gcra_take', bucket(5))->[0][3], 'bucket: a place given back');
    ok(!run('gcra_take', bucket(5))->[0][3], 'bucket: and only one');
    ok(run('gcra_take', bucket(7))->[0][3], 'bucket: a larger burst');
    is(run('gcra_take', bucket(7))->[0][4], 8 * $u, 'bucket: e + T');
    ok(!run('gcra_take', bucket(7, 1, $u - 1))->[0][3], 'bucket: 1 us early');
    ok(run('gcra_take', bucket(7, 1, $u))->[0][3], 'bucket: just in time');

    clear();
    ok(run('gcra_open', opened(5, 4))->[1][7], 'bucket: cost 4 of 6');
    ok(!run('gcra_take', bucket(5, 3))->[0][3], 'bucket: cost 3 of 2');
    ok(run('gcra_take', bucket(5, 2))->[0][3], 'bucket: cost 2 of 2');

    # what was left of a life is told by who sets another

    $admin->command('PEXPIRE', '{k}', 90_000);
    cmp_ok(run('gcra_open', opened(5))->[0], '>', 80_000, 'bucket: its life');
    cmp_ok(run('gcra_give', k => '{k}', minus_refund => 0, ttl => 6000)->[0],
           '>', 50_000, 'bucket: and to who gives back');
    clear();
    is(run('gcra_open', opened(5))->[0], -2, 'bucket: it is new');

    # requests of one moment, in one command and one after the other

    for my $n (1, 2, 7, 32) {
        my @takes = map { $_ % 3 * $u } 1 .. $n;
        my ($tau, @both) = (5 * $u);

        for my $together (0, 1) {
            clear();
            run('gcra_open', opened(9));

            my @got = map { @$_[3 .. $#$_ - 1] }
                      map { run('gcra_take', bucket(9), steps => $_)->[0] }
                      $together ? steps($tau, @takes)
                                : map { steps($tau, $_) } @takes;

            push @both, join ' ', (map { defined $_ ? $_ : 'nil' } @got),
                        dump_of('{k}');
        }

        is($both[1], $both[0], "bucket: $n at once");
    }

    # no bucket: nothing is granted, whatever is asked, and it is told

    for my $class (1, $class, 1888) {
        for my $tau (0, $u, 2 ** 49) {
            my $at = ($class << 51) + $usec;

            clear();

            my $r = run('gcra_take', k => '{k}', stamp => 7, at => $at,
                        from => (1 << 50) - $at, steps => steps($tau, $u))
                    ->[0];

            is($r->[3], undef, "bucket: none, class $class");
            cmp_ok($r->[2], '>=', 2 ** 50, 'bucket: none of this class');
            is($r->[5], 0, 'bucket: and there is none');
        }
    }

    is(run('gcra_left', k => '{k}')->[0], -1, 'bucket: left without a life');
    run('gcra_open', opened(5));
    cmp_ok(run('gcra_left', k => '{k}')->[0], '>', 0, 'bucket: and given one');

    # a bucket of another class is told and left as it was, whatever is asked

    for my $class ($class - 1, $class + 1, 1, 1888) {
        my $other = ($class << 51) + $usec + 3;

        for my $tau (0, $u, 2 ** 49) {
            clear();
            $admin->command(qw(BITFIELD {k} SET u63 0), $other);

            my $r = run('gcra_open', opened(5), open => $max - $tau)->[1];

            cmp_ok($r->[6], '>=', 2 ** 50, "bucket: class $class is another");
            is($r->[9], $other, 'bucket: and stays as it was');

            $r = run('gcra_take', bucket(5), steps => steps($tau, $u))->[0];

            cmp_ok($r->[2], '>=', 2 ** 50, "bucket: class $class is another");
            is($r->[3], undef, 'bucket: refused');
            is($r->[5], $other, 'bucket: and stays as it was');
        }

        # of many that have seen it, one puts its own in its place

        my $put = $at + 5;

        is(together('gcra_swap', sub { bucket_swap($other, $put) },
                    sub { $_[0][1][4] }), 1, 'bucket: one converts it');
        is($admin->command(qw(BITFIELD {k} GET u63 0))->[0], $put,
           'bucket: and it stands');

        for my $seen ($put - 1, $put + 1, 1, $other) {
            my $r = run('gcra_swap', bucket_swap($seen, 7))->[1];
            is($r->[4], undef, 'bucket: it is not the one that was seen');
            is($r->[5], $put, 'bucket: what was found instead');
        }
    }

    is_deeply([ @{ run('gcra_forget', k => '{k}', channel => 'coord:deny',
                       name => '{k}') } ], [ 1, 0 ], 'bucket: forgotten');
    is($admin->command('EXISTS', '{k}'), 0, 'bucket: it is gone');
    run('gcra_open', opened(5));

    is(run('gcra_life', k => '{k}', ttl => 90_000)->[0], 1, 'bucket: lives');
    ttl_at_least('{k}', 80_000);
    is(run('gcra_life', k => '{none}', ttl => 90_000)->[0], 0, 'bucket: none');

    # one allocation of the smallest size that has room for it

    clear();
    run('gcra_open', opened(5));
    cmp_ok($admin->command('MEMORY', 'USAGE', '{k}'), '<=', 80,
           'bucket: memory');
}


# --- fixed window ---

{
    my $granted = together('window_take', sub { window(7) },
                           sub { defined $_[0][1][1] });
    is($granted, 7, 'window: limit 7 admits 7 of 20 at once');
    my $ttl = ttl_at_least('{k}', 30_000);

    my $before = dump_of('{k}');
    is_deeply([ @{ run('window_take', window(7))->[1] } ],
              [ undef, undef, 7 ], 'window: refused');
    ok(!defined run('window_take', window(3))->[1][1], 'window: smaller limit');
    is(dump_of('{k}'), $before, 'window: a refused caller leaves no trace');
    is(run('window_take', window(8))->[1][1], 8, 'window: larger limit');
    is(run('window_give', k => '{k}', zero => $zero, remaining => 5,
           minus_cost => -2)->[1][0], 6, 'window: given back');
    cmp_ok($admin->command('PTTL', '{k}'), '>', 20_000, 'window: same end');
    ok(!defined run('window_take', window(7, 2))->[1][1], 'window: cost 2');

    is(run('window_cut', k => '{k}', window => 5000)->[0], 1, 'window: cut');
    cmp_ok($admin->command('PTTL', '{k}'), '<=', 5000,
           'window: it ends earlier');
    is($admin->command('PEXPIRE', '{k}', 60_000), 1, 'window: still there');

    is(run('window_take', window(7, 1))->[1][1], 7, 'window: cost 1');

    # together they get what each gets by itself

    for my $cost (1, 2, 3) {
        my @both;

        for my $together (0, 1) {
            clear();
            run('window_take', window(8, 1));

            my @got = map { my @r = @{ run('window_take', window(8),
                                           steps => $_)->[1] };
                            $together ? @r[0 .. $#r - 1] : @r[0, 1] }
                      $together ? counts(8, ($cost) x 5)
                                : map { counts(8, $cost) } 1 .. 5;

            push @both, join ' ', (map { defined $_ ? $_ : 'nil' } @got),
                        dump_of('{k}');
        }

        is($both[1], $both[0], "window: five of cost $cost at once");
    }

    # the same of one that is there, in one command

    clear();
    run('window_take', window(7, 5));
    $ttl = $admin->command('PTTL', '{k}');

    is_deeply(run('window_more', k => '{k}', steps => counts(7, 2))->[0],
              [ 4294967295, 7, 7 ], 'window: more');
    $before = dump_of('{k}');
    is_deeply(run('window_more', k => '{k}', steps => counts(7, 1))->[0],
              [ undef, undef, 7 ], 'window: no more');
    is(dump_of('{k}'), $before, 'window: it leaves no trace');
    cmp_ok($admin->command('PTTL', '{k}'), '<=', $ttl, 'window: its own end');
    cmp_ok($admin->command('PTTL', '{k}'), '>', 0, 'window: it has one');

    clear();
    $granted = together('window_more',
                        sub { (k => '{k}', steps => counts(7, 1)) },
                        sub { defined $_[0][0][1] });
    is($granted, 7, 'window: one that was gone admits 7 of 20 at once');
    is($admin->command('PTTL', '{k}'), -1, 'window: without an end');
    is_deeply(run('window_peek', k => '{k}'), [ [7], -1 ],
              'window: which is seen');
    is(run('window_cut', k => '{k}', window => 5000)->[0], 1,
       'window: and mended');
    cmp_ok($admin->command('PTTL', '{k}'), '>', 0, 'window: it ends');

    clear();
    run('window_give', k => '{k}', zero => $zero, remaining => 60_000,
        minus_cost => -1);
    cmp_ok($admin->command('PTTL', '{k}'), '>', 0, 'window: late give, a TTL');
}


# --- sliding window ---

{
    clear();
    $admin->command('ZADD', '{k}p', 10, 't');
    my $granted = together('sliding_window_take', sub { sliding(9, 1, 0.5) },
                           sub { $_[0][3] });
    is($granted, 4, 'sliding window: 10 * 0.5 + 4 = 9');
    ttl_at_least('{k}c', 30_000);

    my $before = contents();
    is(run('sliding_window_take', sliding(9, 1, 0.5))->[2], 9,
       'sliding window: estimate of a refused');
    is(run('sliding_window_take', sliding(3, 1, 0.5))->[3], 0,
       'sliding window: smaller limit');
    is(contents(), $before, 'sliding window: refused, no trace');

    is(run('sliding_window_give', cur => '{k}c', minus_cost => -2)->[0], 2,
       'sliding window: given back');
    is(run('sliding_window_take', sliding(9, 3, 0.5))->[3], 0,
       'sliding window: cost 3 of 2');
    is(run('sliding_window_take', sliding(9, 2, 0.5))->[6], 4,
       'sliding window: cost 2 of 2');

    clear();
    $admin->command('ZADD', '{k}p', 10, 't');
    is(run('sliding_window_take', sliding(9, 1, 1))->[3], 0,
       'sliding window: refused by the previous window alone');
    is($admin->command('EXISTS', '{k}c', '{k}tmp'), 0,
       'sliding window: refused, no counter made');
    is(run('sliding_window_give', cur => '{k}c', minus_cost => -1)->[0], undef,
       'sliding window: give to a window that is gone');
}


# --- leases, and the log: where granted, dropped and used stand ---

for my $c ([ 'lease', 'lease_acquire', \&lease, 'lease_release', 2, 3, 4 ],
           [ 'log', 'sliding_log_take', \&entry, 'sliding_log_give', 3, 0, 5 ])
{
    my ($what, $take, $args, $give, $granted, $dropped, $used) = @$c;

    for my $limit (1, 5) {
        clear();

        is(together($take, sub { $args->("id$_[0]", $limit) },
                    sub { $_[0][$granted] }),
           $limit, "$what: limit $limit admits $limit of 20");
        is($admin->command('ZCARD', '{k}'), $limit, "$what: $limit held");
        ttl_at_least('{k}', 30_000);

        my $before = contents();
        my $reply = run($take, $args->('late', $limit));
        is("@$reply[$granted,$used]", "0 $limit", "$what: refused at $limit");
        is(run($take, $args->('late', 1))->[$granted], 0,
           "$what: limit 1 refused");
        is(contents(), $before, "$what: refused, no trace, nobody evicted");

        my ($holder) = @{ $admin->command('ZRANGE', '{k}', 0, 0) };
        $reply = run($take, $args->($holder, $limit, 1000));
        is("@$reply[$granted,$used]", "1 $limit",
           "$what: a holder asks again");
        isnt($admin->command('ZSCORE', '{k}', $holder), undef,
             "$what: and keeps its place");

        is(run($give, k => '{k}', id => 'late')->[0], 0, "$what: not held");
        is(run($give, k => '{k}', id => $holder)->[0], 1, "$what: given back");
        is(run($take, $args->('late', $limit))->[$granted], 1,
           "$what: room again");
        is(run($take, $args->('more', $limit + 1))->[$granted], 1,
           "$what: a larger limit on the same key");

        # a lease is dropped behind who asks, who is dropped with it

        my @later = $args->('much later', $limit, 99_000_000);
        my $asker = $what eq 'lease' ? 1 : 0;
        $reply = run($take, @later);
        is($reply->[$dropped], $limit + 1 + $asker, "$what: time frees all");
        $reply = run($take, @later) if $asker;
        is("@$reply[$granted,$used]", '1 1', "$what: for who asks");
    }
}

# several who ask together: as many as there is room for, the first of them

for my $held (0 .. 4) {
    for my $n (1, 2, 5) {
        my @ids = map { "id$_" } reverse 1 .. $n;
        my $room = $held < 3 ? 3 - $held : 0;
        $room = $n if $room > $n;

        for (['lease_acquire', \&lease, 0], ['sliding_log_take', \&entry, 1])
        {
            my ($take, $args, $at) = @$_;

            clear();
            run($take, $args->("held$_", 9)) for 1 .. $held;

            my $reply = run($take, $args->(\@ids, 3));
            is("@$reply[$at .. $at + 4]",
               join(' ', $n, $room, $room, $n - $room, $held + $room),
               "$take: $n ask where $held of 3 are held");
            is(join(' ', sort grep { !/held/ }
                              @{ $admin->command('ZRANGE', '{k}', 0, -1) }),
               join(' ', sort @ids[0 .. $room - 1]), "$take: the first");
            ttl_at_least('{k}', 30_000) if $held + $room;
        }
    }
}

# whose end makes room, where others have larger limits

{
    clear();
    run('sliding_log_take', entry("e$_", 9, $_ * 1_000_000)) for 0 .. 4;

    for my $limit (1, 3, 5) {
        my $reply = run('sliding_log_take', entry('late', $limit, 10_000_000));
        is($reply->[3], 0, "log: limit $limit refuses");
        is("@{ $reply->[6] }", sprintf('e%d %d', 5 - $limit, 0)
                               =~ s/0$/lease_time((5 - $limit) * 1_000_000)/er,
           'log: until there is room');
    }
}

{
    clear();
    run('lease_acquire', lease("dead$_", 3)) for 1 .. 2;

    my @ids = qw(x a b);
    my $reply = run('lease_acquire', lease(\@ids, 3, 40_000_000));
    is("@$reply[1..4]", '1 1 4 1', 'lease: others are over, two ask again');
    $reply = run('lease_acquire', lease([qw(a b)], 3, 40_000_000));
    is("@$reply[1..4]", '2 2 0 3', 'lease: and are granted');
}

for my $limit (1, 3) {
    clear();

    run('lease_acquire', lease("dead$_", $limit)) for 1 .. $limit;
    run('lease_acquire', lease('held', $limit + 1, 20_000_000));

    # as if nobody had dropped them: refused, but told to ask again

    my @late = lease('late', $limit, 40_000_000);

    is("@{ run('lease_acquire', @late) }[2..4]", "0 @{[ $limit + 1 ]} 1",
       "lease: $limit that are over still have their places");
    is("@{ run('lease_acquire', @late) }[2..4]",
       $limit > 1 ? '1 0 2' : '0 1 1', 'lease: which are free then');

    # a holder whose limit was lowered goes, others stay

    run('lease_acquire', lease("more$_", 9, 40_000_000)) for 1 .. 3;
    my @held = grep { $_ ne 'more2' }
               @{ $admin->command('ZRANGE', '{k}', 0, -1) };

    is(run('lease_acquire', lease('more2', 1, 40_000_000))->[2], 0,
       'lease: a limit that was lowered');
    is("@{ $admin->command('ZRANGE', '{k}', 0, -1) }", "@held",
       'lease: ends nobody else');
}

for my $n (1, 3, 40) {
    clear();

    my $granted = together('sliding_log_many',
                           sub { entries("id$_[0]", $n, 3 * $n - 1) },
                           sub { $_[0][3] });
    is($granted, 2, "log: two of 20 have room for $n of " . (3 * $n - 1));
    is($admin->command('ZCARD', '{k}'), 2 * $n, 'log: all of them, or none');

    my $before = contents();
    my $reply = run('sliding_log_many', entries('late', $n, 2 * $n));

    is($reply->[3], 0, 'log: refused');
    is($reply->[4], $n, 'log: and taken out again');
    is($reply->[8][0], $admin->command('ZRANGE', '{k}', $n - 1, $n - 1)->[0],
       'log: until so many are over');
    is(contents(), $before, 'log: refused, no trace');
    is(run('sliding_log_many', entries('all', 2 * $n, 2 ** 31 - 1))->[3], 1,
       'log: more than there are');

    my %e = entries('all', 2 * $n, 0);
    is(run('sliding_log_back', k => '{k}', ids => $e{ids})->[0], 2 * $n,
       'log: given back');
    is(contents(), $before, 'log: as it was');
    ttl_at_least('{k}', 50_000);
}

{
    clear();
    run('lease_acquire', lease('a', 1));
    my $reply = run('lease_renew', renew('a', 50_000_000));
    is("@$reply", '1 ' . (lease_time(50_000_000)) . ' 1', 'lease: renewed');
    is(run('lease_renew', renew('a', 50_000_000))->[1],
       lease_time(50_000_000), 'lease: renewed to the same time');
    is(run('lease_acquire', lease('b', 1, 40_000_000))->[2], 0,
       'lease: renewed, still held');
    is(run('lease_renew', renew('b', 60_000_000))->[1], undef,
       'lease: renewal gives none');
    is($admin->command('ZCARD', '{k}'), 1, 'lease: and adds none');
}


# --- sessions ---

{
    my $won = together('session_bind', sub { session("v$_[0]", "u$_[0]") },
                       sub { $_[0][0] });
    is($won, 1, 'session: one of 20 creates it');

    my $r = run('session_get', k => '{k}', x => '{k}:x');
    my ($n) = $r->[0][1] =~ /^v(\d+)$/;
    is($r->[0][2], "u$n", 'session: value and user of the same caller');
    is($r->[0][0], us(0), 'session: created');
    ttl_at_least('{k}', 50_000);

    $r = run('session_peek', k => '{k}', x => '{k}:x');
    is("@{ $r->[0] }", us(0) . " v$n u$n", 'session: the same without its life');
    is($r->[1], undef, 'session: not ended');

    $r = run('session_bind', session('late', 'late'));
    is("@$r[0 .. 2] $r->[4][1]", "0 0 0 v$n", 'session: what stands is told');

    clear();
    run('session_bind', session(undef, undef));
    is_deeply([ @{ run('session_get', k => '{k}', x => '{k}:x')->[0] } ],
              [ us(0), undef, undef ], 'session: without a value');
    is(run('session_bind', session('later', undef))->[4][1], 'later',
       'session: the value comes later');

    run('session_set', k => '{k}', now => us(9), field => 'v',
        value => 'other', ttl => 90_000);
    $r = run('session_get', k => '{k}', x => '{k}:x');
    is("@{ $r->[0] }[0, 1]", us(0) . ' other', 'session: set');
    ttl_at_least('{k}', 80_000);

    run('session_touch', k => '{k}', ttl => 120_000);
    ttl_at_least('{k}', 110_000);
    is(run('session_touch', k => '{none}', ttl => 1000)->[0], 0,
       'session: touch of none');
    is($admin->command('EXISTS', '{none}'), 0, 'session: touch creates none');

    run('session_set', k => '{k}', now => us(9), field => 'u',
        value => 'u1', ttl => 90_000);
    $r = run('session_revoke', k => '{k}', x => '{k}:x', until => us(5),
             ttl => 60_000, channel => 'coord:w');
    is("@$r[0, 1]", 'u1 1', 'session: revoked, whose it was');
    is($r->[2], undef, 'session: not before');
    is($admin->command('EXISTS', '{k}'), 0, 'session: nothing else is left');
    $r = run('session_bind', session('again', 'u1'));
    is($r->[5], us(5), 'session: revoked stays revoked');
    run('session_touch', k => '{k}', ttl => 1000);
    ttl_at_least('{k}:x', 50_000);
    is(run('session_revoke', k => '{k}', x => '{k}:x', until => us(6),
           ttl => 60_000, channel => 'coord:w')->[2],
       us(5), 'session: revoked twice');
    is(run('session_revoke', k => '{new}', x => '{new}:x', until => us(5),
           ttl => 60_000, channel => 'coord:w')->[1],
       0, 'session: revoke of none');
    ttl_at_least('{new}:x', 50_000);
}


# --- users ---

{
    clear();
    my $added = together('user_add', sub { user("s$_[0]", $_[0], 5) },
                         sub { $_[0][1] });
    is($added, 20, 'user: 20 sessions');
    is($admin->command('ZCARD', '{k}'), 5, 'user: 5 are left');
    ttl_at_least('{k}', 50_000);

    clear();
    run('user_add', user("s$_", $_, 3)) for 1 .. 3;
    run('user_seen', i => '{k}', now => us(10), id => 's1', ttl => 60_000);
    my $one = run('user_add', user('s4', 11, 3));
    is("@{ $one->[2] } $one->[3]", 's2 1', 'user: one too many, and which');
    is(join(' ', map { run('user_check', i => '{k}', id => $_)->[0] ? 1 : 0 }
                 qw(s1 s2 s3 s4)), '1 0 1 1',
       'user: the least recently active is ended');

    run('user_seen', i => '{k}', now => us(12), id => 's2', ttl => 60_000);
    run('user_seen', i => '{k}', now => us(5), id => 's1', ttl => 60_000);
    my $r = run('user_list', i => '{k}', old => us(-9), last => 1);
    is("$r->[1] @{ $r->[2] }", '3 s4 ' . us(11) . ' s1 ' . us(10),
       'user: list, the ended does not come back, activity only grows');
    is(run('user_list', i => '{k}', old => us(5), last => 9)->[0], 1,
       'user: expired ones are dropped');

    is(run('user_drop', i => '{k}', id => 's4')->[0], 1, 'user: drop');
    is(run('user_drop', i => '{k}', id => 's4')->[0], 0, 'user: dropped');
    is(run('user_revoke', i => '{k}')->[0], 1, 'user: revoke all');
    is($admin->command('EXISTS', '{k}'), 0, 'user: none is left');

    # the new one stays, also if the clocks of those before were fast

    clear();
    run('user_add', user("s$_", 20 + $_, 2)) for 1, 2;
    $one = run('user_add', user('s3', 20, 2));
    is("@{ $one->[2] } $one->[3]", 's1 1', 'user: another one is ended');
    $r = run('user_list', i => '{k}', old => us(-9), last => 9);
    is("@{ $r->[2] }", 's2 ' . us(22) . ' s3 ' . us(20),
       'user: and the time is that of its caller');

    # places that are numbered: who is in stays

    clear();
    my $in = together('user_seat', sub { seat("s$_[0]", $_[0], 5) },
                      sub { $_[0][3] });
    is($in, 5, 'seat: 5 of 20');
    is($admin->command('ZCARD', '{k}'), 5, 'seat: and no more');
    is($admin->command('EXISTS', '{k}:t'), 0, 'seat: nothing else is left');
    ttl_at_least('{k}', 50_000);

    my ($holder) = @{ $admin->command('ZRANGE', '{k}', 0, 0) };
    is(run('user_seat', seat($holder, 30, 5))->[3], 1, 'seat: has one');
    is(run('user_seat', seat('late', 31, 5))->[3], 0, 'seat: none');
    is(run('user_check', i => '{k}', id => 'late')->[0], undef,
       'seat: no trace');
    run('user_drop', i => '{k}', id => $holder);
    is(run('user_seat', seat('late', 32, 5))->[3], 1, 'seat: one is free');
    is(run('user_seat', seat('later', 200, 5), old => us(100))->[3], 1,
       'seat: of those that expired');

    # one is given back only as it was taken

    my %back = (i => '{k}', id => 'later', at => us(200), taken => -us(200));

    run('user_seat', seat('later', 201, 5), old => us(100));
    is(run('user_unseat', %back, at => us(199), taken => -us(199))->[1], 0,
       'seat: not that of another time');
    is(run('user_check', i => '{k}', id => 'later')->[0], us(200),
       'seat: it stays as it was');
    is(run('user_unseat', %back)->[1], 1, 'seat: given back');
    is(run('user_unseat', %back)->[1], 0, 'seat: once');
    is(run('user_check', i => '{k}', id => 'later')->[0], undef,
       'seat: it is not there');

    run('user_seat', seat('later', 200, 5), old => us(100));
    run('user_seen', i => '{k}', now => us(202), id => 'later', ttl => 60_000);
    is(run('user_unseat', %back)->[1], 0, 'seat: not when it was used since');
    is(run('user_check', i => '{k}', id => 'later')->[0], us(202),
       'seat: which stays as well');
}


# --- nodes of the fleet ---

{
    clear();

    my %node = (l => '{k}', old => us(-9), ttl => 60_000, last => 9);

    run('node_list', %node, node => "n$_", now => us($_)) for 3, 1, 2;
    my $r = run('node_list', %node, node => 'n1', now => us(4));
    is("$r->[0] @{ $r->[3] }", '0 n2 n3 n1', 'nodes: by their last news');
    ttl_at_least('{k}', 50_000);

    $r = run('node_list', %node, node => 'n4', now => us(5), old => us(3),
             last => 1);
    is("$r->[0] $r->[1] @{ $r->[3] }", '1 2 n1 n4',
       'nodes: who was silent is gone');

    run('node_tell', n => '{k}n', text => 'a text', ttl => 60_000);
    ttl_at_least('{k}n', 50_000);
    is(run('node_read', n => '{k}n')->[0], 'a text', 'nodes: what one tells');
    is(run('node_read', n => '{k}m')->[0], undef, 'nodes: one that is not');
}


# --- idempotency ---

{
    my $granted = together('idempotency_claim', sub { claim("c$_[0]", 0) },
                           sub { $_[0][4] });
    is($granted, 1, 'idempotency: one of 20 claims');
    ttl_at_least('{k}', 80_000);

    clear();
    run('idempotency_claim', claim('a', 0));
    my $r = run('idempotency_claim', claim('b', 1));
    is("$r->[1] $r->[3] $r->[4]", '0 1 0', 'idempotency: refused');
    is("@{ $r->[5] }", 'a ' . us(30), 'idempotency: who has it');
    is($admin->command('ZCARD', '{k}'), 1, 'idempotency: and no trace');
    is(run('idempotency_claim', claim('a', 2))->[4], 1,
       'idempotency: the holder may ask again');

    is(run('idempotency_renew', renewal('b', 40))->[1], undef,
       'idempotency: only the holder renews');
    is(run('idempotency_renew', renewal('a', 40))->[1], us(40),
       'idempotency: renewed');

    run('idempotency_release', k => '{k}', member => 'b', channel => 'coord:w');
    ok(!run('idempotency_claim', claim('b', 1))->[4],
       'idempotency: only the holder releases');
    run('idempotency_release', k => '{k}', member => 'a', channel => 'coord:w');
    ok(run('idempotency_claim', claim('b', 1))->[4], 'idempotency: released');

    # lapsed

    $r = run('idempotency_claim', claim('c', 32, us(-10)));
    is("$r->[4] @{ $r->[5] }", '0 b ' . us(31),
       'idempotency: a lapsed claim blocks where it is kept');
    $r = run('idempotency_claim', claim('c', 32));
    is("$r->[1] $r->[4]", '1 1', 'idempotency: and is dropped where not');

    # results: the first one stays

    is(run('idempotency_complete', result('b', 'late'))->[0], 'OK',
       'idempotency: result of a run whose claim had lapsed');
    is(run('idempotency_complete', result('c', 'second'))->[0], undef,
       'idempotency: the first result wins');

    $r = run('idempotency_claim', claim('d', 40));
    is("$r->[0] $r->[4]", 'late 0', 'idempotency: the result, no claim');
    $r = run('idempotency_claim', claim('d', 40, us(-10)));
    is("$r->[0] $r->[4]", 'late 0', 'idempotency: with lapsed ones kept, too');

    is(run('idempotency_record', r => '{k}:r')->[0], 'late',
       'idempotency: the record');
    is(run('idempotency_record', r => '{none}:r')->[0], undef,
       'idempotency: no record');
    $admin->command('SET', '{large}:r', 'x' x 5000);
    is(length run('idempotency_claim', claim('d', 40), r => '{large}:r')->[0],
       4096, 'idempotency: the beginning of a large record');
    $admin->command('DEL', '{large}:r');
    ttl_at_least('{k}', 80_000);
    cmp_ok($admin->command('PTTL', '{k}:r'), '>', 80_000,
           'idempotency: life of the result');

    is(run('idempotency_discard', r => '{k}:r', k => '{k}', done => 'bd')->[0],
       1, 'idempotency: discarded');
    run('idempotency_discard', r => '{k}:r', k => '{k}', done => 'cd');
    ok(run('idempotency_claim', claim('d', 40))->[4],
       'idempotency: claimed anew');
}


# --- a window that is full ---

{
    clear();
    my @fill = (k => '{k}', zero => "\0\0\0\0", window => 60_000);

    run('window_take', window(7)) for 1 .. 3;
    is(run('window_fill', @fill, cost => 5)->[1][0], 8, 'fill: counts');
    is(run('window_fill', @fill, cost => 2 ** 31 - 5)->[1][0], 2 ** 31 - 1,
       'fill: and stops at the largest count');
    is(run('window_take', window(2 ** 31 - 1))->[1][0], undef,
       'fill: nobody has room then');
    is(run('window_peek', k => '{k}')->[0][0], 2 ** 31 - 1,
       'fill: and nothing changes');
}


# --- looking and forgetting ---

{
    clear();
    is(run('gcra_peek', k => '{k}')->[0][0], 0, 'peek: no bucket');
    run('gcra_open', opened(5));
    my $before = dump_of('{k}');
    is(run('gcra_peek', k => '{k}')->[0][0], $at + $u, 'peek: its TAT');
    is(dump_of('{k}'), $before, 'peek: nothing changes');
    is(run('forget', a => '{k}', b => '{k}', c => '{k}')->[0], 1, 'forgotten');
    is($admin->command('EXISTS', '{k}'), 0, 'forget: it is gone');
    is(run('forget', a => '{k}', b => '{k}', c => '{k}')->[0], 0, 'nothing');

    clear();
    is_deeply(run('window_peek', k => '{k}'), [ [0], -2 ], 'peek: no window');
    run('window_take', window(7)) for 1 .. 3;
    is(run('window_peek', k => '{k}')->[0][0], 3, 'peek: window');
    is_deeply([ @{ run('window_forget', a => '{k}', b => '{k}', c => '{k}',
                       channel => 'coord:deny', name => '{k}') } ], [ 1, 0 ],
              'window: forgotten');
    is($admin->command('EXISTS', '{k}'), 0, 'window: it is gone');

    clear();
    is_deeply(run('sliding_window_peek', cur => '{k}:2', prev => '{k}:1'),
              [ undef, undef ], 'peek: no sliding window');
    $admin->command('ZADD', '{k}:2', 4, 't');
    is_deeply(run('sliding_window_peek', cur => '{k}:2', prev => '{k}:1'),
              [ 4, undef ], 'peek: sliding window');

    clear();
    is_deeply(run('set_peek', k => '{k}', from => 5), [ 0, [] ],
              'peek: no set');
    $admin->command('ZADD', '{k}', 4, 'a', 5, 'b', 9, 'c');
    is_deeply(run('set_peek', k => '{k}', from => 5), [ 2, [ 'b', 5 ] ],
              'peek: what is over does not count');
    clear();
}


# --- holds: the longest counts ---

{
    clear();
    is(run('hold_peek', k => '{k}')->[0], -2, 'hold: none');

    my @put = map { my ($end, $left) = @$_;
                    [ run('hold_put', k => '{k}', tmp => '{k}:tmp',
                          end => $end, left => $left)->[3],
                      $admin->command('ZSCORE', '{k}', 't'),
                      int($admin->command('PTTL', '{k}') / 1000 + 0.5),
                      $admin->command('EXISTS', '{k}:tmp') ] }
                  [ 9000, 60000 ], [ 8000, 50000 ], [ 9000, 70000 ],
                  [ 9500, 90000 ];

    is_deeply(\@put, [ [ 1, 9000, 60, 0 ], [ 0, 9000, 60, 0 ],
                       [ 1, 9000, 70, 0 ], [ 1, 9500, 90, 0 ] ],
              'hold: a shorter one leaves a longer one and its life');
    cmp_ok(run('hold_peek', k => '{k}')->[0], '>', 80000, 'hold: its rest');
    clear();
}


# --- who waits for a lease ---

for my $limit (1, 3) {
    clear();

    is(run('lease_turn', turn($_, $limit))->[8], 1, "turn: $_ of $limit")
        for 1 .. $limit;

    my $before = contents();
    my $reply = run('lease_turn', turn('b', $limit));
    is("@$reply[8,9,13,15]", "0 1 $limit 0", 'turn: refused');
    is(contents(), $before, 'turn: refused, no trace');

    is(run('wait_enter', line('b', 2, 10))->[2], 1, 'line: enters');
    is(run('wait_enter', line('a', 2, 5))->[2], 1, 'line: an earlier arrival');
    is(run('wait_enter', line('b', 2, 20))->[0], 0, 'line: enters again');
    is(run('wait_enter', line('c', 2, 30))->[3], 1, 'line: full');
    is("@{ $admin->command('ZRANGE', '{k}w', 0, -1) }", 'a b', 'line: order');
    ttl_at_least('{k}w', 30_000);

    $reply = run('lease_turn', turn('a', $limit));
    is("@$reply[8,13,15]", "0 $limit 2", 'turn: first, but no room');
    is($reply->[14][0], 'a', 'turn: who is first');

    run('lease_release', k => '{k}', id => 1);
    $before = contents();
    $reply = run('lease_turn', turn('b', $limit));
    is("@$reply[8,13]", '0 ' . ($limit - 1), 'turn: room, but not first');
    is(run('lease_turn', turn('c', $limit))->[8], 0, 'turn: nor a newcomer');
    is(contents(), $before, 'turn: no trace');
    is(run('lease_turn', turn('a', $limit))->[8], 1, 'turn: first, and room');
    is(run('lease_turn', turn('a', $limit, 1))->[8], 1, 'turn: asks again');

    is(run('wait_leave', w => '{k}w', k => '{k}', id => 'a',
           channel => 'coord:wake')->[0], 1, 'line: leaves');
    is(run('lease_release_wake', k => '{k}', id => 'a', channel => 'coord:wake')->[0],
       1, 'lease: released, with news');
    is(run('lease_turn', turn('b', $limit))->[8], 1, 'turn: the next');
    is(run('wait_clear', w => '{k}w2', k => '{k}',
           channel => 'coord:wake')->[0], 0, 'line: nobody to clear');

    $reply = run('lease_turn', turn('z', $limit, 99_000_000));
    is("@$reply[1,8]", '1 1', 'turn: time empties the line');
    is($admin->command('EXISTS', '{k}w', '{k}tmp', '{k}head'), 0,
       'turn: nothing is left of it');
}

{
    clear();
    run('wait_enter', line($_, 100, $_)) for 1 .. 20;
    my $granted = together('lease_turn', sub { turn($_[0] + 1, 3) },
                           sub { $_[0][8] });
    cmp_ok($granted, '<=', 3, 'turn: never more than the limit');
    is($admin->command('ZCARD', '{k}'), $granted, 'turn: as many are held');
}

{
    clear();
    my @tokens = map { run('lock_token', t => '{k}t', now => 1000,
                           ttl => 86_400_000)->[1] } 1 .. 3;
    is("@tokens", '1001 1002 1003', 'token: grows');
    ttl_at_least('{k}t', 80_000_000);
}


# --- events ---

{
    clear();

    is(run('event_publish', channel => 'coord:news', text => 'a')->[0], 0,
       'event: nobody hears it');

    my %event = (k => 'coord:{k}', n => 10, ttl => 60_000, mark => 'mark',
                 channel => 'coord:news');
    my @ids = map { run('event_append', %event, text => "m$_")->[0] } 1 .. 4;
    ttl_at_least('coord:{k}', 50_000);

    my $r = run('event_read', k => 'coord:{k}', after => "($ids[1]", n => 1);
    is($r->[0][0][0], $ids[3], 'event: the last one');
    is(join(' ', map { "$_->[0] @{ $_->[1] }" } @{ $r->[1] }),
       "$ids[2] m m3", 'event: the page behind an id');
    is_deeply(run('event_read', k => '{none}', after => '(0-0', n => 9),
              [ [], [] ], 'event: nothing kept');
}


# --- the files ---


# --- events ---

{
    clear();
    my %event = (k => 'coord:ev:{c}', n => 2, ttl => 60_000,
                 channel => 'coord:c', mark => 'm');
    my @id = map { run('event_append', %event, text => $_)->[0] } 1 .. 300;
    like($id[0], qr/^\d+-\d+$/, 'event: an id');
    ttl_at_least('coord:ev:{c}', 50_000);
    cmp_ok($admin->command('XLEN', 'coord:ev:{c}'), '<', 300,
           'event: a stream ends');
    is(run('event_publish', channel => 'coord:c', text => 'x')->[0], 0,
       'event: nobody listens');

    my $reply = run('event_read', k => 'coord:ev:{c}', n => 10,
                    after => "($id[296]");
    is($reply->[0][0][0], $id[299], 'event: the head');
    is("@{[ map { $_->[1][1] } @{ $reply->[1] } ]}", '298 299 300',
       'event: what is behind an id');
    $reply = run('event_read', k => 'coord:ev:{none}', n => 10, after => '0');
    is_deeply([ map { scalar @$_ } @$reply ], [0, 0], 'event: no stream');
}


# --- cache ---

{
    clear();
    is(run('cache_put', r => '{k}:r', record => 'page', ttl => 60_000)->[0], 'OK',
       'cache: stored');
    ttl_at_least('{k}:r', 50_000);
    my @got = @{ run('cache_get', r => '{k}:r', p => '{k}:p') };
    is_deeply([ @got[0, 1] ], ['page', undef], 'cache: found');
    cmp_ok(abs($got[2][0] - time), '<', 60, 'cache: now');
    is(run('cache_mark', r => '{k}:r', record => 'mark', ttl => 60_000)->[0], undef,
       'cache: no mark in place of a response');
    @got = @{ run('cache_purge', r => '{k}:r', p => '{k}:p', now => 17,
                  ttl => 60_000) };
    is($got[0], 1, 'cache: purged');
    cmp_ok(abs($got[2][0] - time), '<', 60, 'cache: and the time of that');
    ttl_at_least('{k}:p', 50_000);
    is_deeply([ @{ run('cache_get', r => '{k}:r', p => '{k}:p') }[0, 1] ],
              [undef, 17], 'cache: when');
    is(run('cache_purged', p => '{k}:p', time => 18, ttl => 60_000)->[0], 17,
       'cache: what was noted before');
    is($admin->command(GET => '{k}:p'), 18, 'cache: noted');
    ttl_at_least('{k}:p', 50_000);
    is(run('cache_mark', r => '{k}:r', record => 'mark', ttl => 60_000)->[0], 'OK',
       'cache: a mark');
    ttl_at_least('{k}:r', 50_000);
}


is_deeply([ sort keys %called ], [ sort keys %script ], 'each script was run');

{
    my $fresh = `sh $dir/generate.sh`;
    open(my $fh, '<', $table) or die "$table: $!";
    local $/;
    is($fresh, <$fh>, 'the table is that of generate.sh');
}

malformed('unknown placeholder', qr/bad\.redis:8: .*\{x\}/,
          sub { $_[0] =~ s/\{id\}$/{x}/m });
malformed('no EXEC', qr/bad\.redis:8: .*EXEC/, sub { $_[0] =~ s/EXEC\n// });
malformed('no MULTI', qr/bad\.redis:7: .*MULTI/, sub { $_[0] =~ s/MULTI\n// });
malformed('a write behind a read, and no MULTI', qr/bad\.redis:7: .*MULTI/,
          sub { $_[0] =~ s/MULTI\n/HGET {k} {id}\n/ });
malformed('a read behind a write, and no MULTI', qr/bad\.redis:7: .*MULTI/,
          sub { $_[0] =~ s/MULTI\n//; $_[0] =~ s/EXEC/HGET {k} {id}/ });
malformed('no atomic', qr/bad\.redis:8: .*atomic/,
          sub { $_[0] =~ s/# atomic.*\n// });

done_testing();


sub bucket {
    my ($burst, $cost, $later) = (@_, 1);

    $cost = 1 if !defined $cost;
    $later = 0 if @_ < 3;

    my ($tau, $take) = (($burst + 1 - $cost) * $u, $cost * $u);
    my $at = $at + $later;

    return (k => '{k}', stamp => 7, from => (1 << 50) - $at,
            steps => steps($tau, $take), at => $at);
}


sub steps {
    my ($tau, @takes) = @_;

    return [map { ('INCRBY', 'u63', 0, $max - $tau,
                   'INCRBY', 'u63', 0, -($max - $tau - $_)) } @takes];
}


sub opened {
    my ($burst) = @_;

    my %take = bucket(@_);
    my $steps = delete $take{steps};

    return (%take, open => $steps->[3], close => $steps->[7], fresh => $take{at} - $max, minus_cap => -($burst + 1),
            cap => $burst + 1, ttl => 60_000);
}


sub bucket_swap {
    my ($seen, $put) = @_;

    return (k => '{k}', above => $max - $seen, below => -($max - $seen),
            place => $put - $max, ttl => 60_000);
}


sub window {
    my ($limit, $cost) = (@_, 1);

    return (k => '{k}', zero => $zero, window => 60_000,
            steps => counts($limit, $cost));
}


sub counts {
    my ($limit, @costs) = @_;

    return [map { ('INCRBY', 'u32', 0, 4294967295 - ($limit - $_),
                   'INCRBY', 'u32', 0, -(4294967295 - $limit)) } @costs];
}


sub sliding {
    my ($limit, $cost, $f) = @_;

    return (cur => '{k}c', prev => '{k}p', tmp => '{k}tmp', f => $f,
            fit => $limit - $cost, cost => $cost, ttl => 60_000);
}


sub lease_time { return $now / 1000 + $_[0] }


# of one who asks, or of several: [id, ..]

sub lease {
    my ($id, $limit, $later) = (@_, 0);

    my @ids = ref $id ? @$id : $id;
    my $expiry = lease_time($later + 30_000_000);

    return (k => '{k}', now => lease_time($later), from => -$limit,
            asks => [map { (-1 - $_, $ids[$_]) } 0 .. $#ids],
            last => $#ids, leases => [map { ($expiry, $_) } @ids],
            ttl => 60_000);
}


sub turn {
    my ($id, $limit, $later) = (@_, 0);

    my %lease = lease($id, $limit, $later);
    delete @lease{qw(from asks last leases)};

    return (%lease, id => $id, expiry => lease_time($later + 30_000_000), tmp => '{k}tmp', limit => $limit, w => '{k}w', head => '{k}head',
            old => lease_time($later - 60_000_000));
}


sub line {
    my ($id, $limit, $later) = @_;

    return (w => '{k}w', tmp => '{k}tmp', arrival => lease_time($later),
            id => $id, limit => $limit, ttl => 60_000);
}


sub renew {
    my ($id, $expiry) = @_;

    return (k => '{k}', id => $id, expiry => lease_time($expiry),
            ttl => 60_000);
}


sub entry {
    my ($id, $limit, $later) = (@_, 0);

    my @ids = ref $id ? @$id : $id;
    my $now = lease_time($later);

    return (k => '{k}', old => lease_time($later - 30_000_000),
            asks => [map { (-1 - $_, $ids[$_]) } 0 .. $#ids], from => -$limit,
            last => $#ids, entries => [map { ($now, $_) } @ids],
            window => 60_000);
}


sub entries {
    my ($id, $n, $limit) = @_;

    my @ids = map { "$id-$_" } 1 .. $n;
    my %e = entry(\@ids, $limit);
    delete @e{qw(asks from last)};

    return (%e, tmp => '{k}tmp', limit => $limit, ids => \@ids,
            rank => -($limit - $n + 1));
}


sub claim {
    my ($member, $at, $gone) = @_;

    return (r => '{k}:r', k => '{k}', gone => $gone || us($at),
            member => $member, expiry => us($at + 30), ttl => 90_000);
}


sub renewal {
    my ($member, $until) = @_;

    return (k => '{k}', member => $member, expiry => us($until),
            ttl => 90_000);
}


sub result {
    my ($member, $blob) = @_;

    return (r => '{k}:r', k => '{k}', blob => $blob, ttl => 90_000,
            member => $member, expiry => us(90), done => "${member}d",
            life => 90_000, channel => 'coord:w');
}


sub script {
    my ($file) = @_;

    my (@commands, @shapes);

    open(my $fh, '<', $file) or die "$file: $!";

    while (<$fh>) {
        push @shapes, $1 if /^# reply: (?:[a-z0-9_]+=)?(\S+)/;
        push @commands, [ split ] if !/^#/;
    }

    return { commands => \@commands, shapes => \@shapes };
}


sub substitute {
    my ($name, %value) = @_;

    my $used = $script{$name}{commands};

    return map { [ map { value($name, $_, \%value) } @$_ ] } @$used;
}


# what stands for a token; several for a list

sub value {
    my ($name, $token, $value) = @_;

    return @{ $value->{$1} } if $token =~ /^\{(.+)\.\.\}$/;
    return $token if $token !~ /^\{(.+)\}$/;
    return defined $value->{$1} ? $value->{$1}
                                : die "$name: no value for $token";
}


# runs a script; a reply for each command, in the shapes of the header

sub run {
    my ($name, %value) = @_;

    return checked($name, $redis->pipeline(substitute($name, %value)));
}


sub checked {
    my ($name, @replies) = @_;

    my $reply = $replies[-1];
    my @shapes = @{ $script{$name}{shapes} };
    my @bad;

    # a reply for each where there is no transaction

    if ($script{$name}{commands}[0][0] ne 'MULTI') {

        for (0 .. $#shapes) {
            BAIL_OUT("$name: unlike its header: $replies[$_]")
                if !fits($replies[$_], $shapes[$_]);
        }

        $called{$name} = 1;

        return \@replies;
    }

    push @bad, "reply \"$reply\"" if ref $reply ne 'Coord::Redis::Array';

    if (!@bad) {
        push @bad, 'number of replies' if @$reply != @shapes;

        for (0 .. $#shapes) {
            push @bad, "$_: $shapes[$_]" if !fits($reply->[$_], $shapes[$_]);
        }
    }

    BAIL_OUT("$name: unlike its header: @bad") if @bad;
    $called{$name} = 1;

    return $reply;
}


sub fits {
    my ($value, $shape) = @_;

    if ($shape =~ /^(\[.*\])\|(\[.*\])$/) {
        my ($one, $other) = ($1, $2);

        return fits($value, $one) || fits($value, $other);
    }

    if ($shape =~ /^\[(.*)\]$/) {
        my @elements = split /,/, $1;

        return ref $value eq 'Coord::Redis::Array' && @$value == @elements
               && !grep { !fits($value->[$_], $elements[$_]) } 0 .. $#elements;
    }

    return ref $value eq 'Coord::Redis::Array' if $shape eq 'list';
    return $shape =~ /nil/ if !defined $value;
    return 0 if ref $value;
    return $value =~ /^-?\d+$/ if $shape =~ /int/;
    return $value eq 'OK' if $shape =~ /status/;
    return $shape =~ /string/;
}


# 20 connections ask before any reads; how many were granted

sub together {
    my ($name, $args, $is_granted) = @_;

    my @clients = map { client() } 1 .. 20;
    my @pids;

    clear() if $name !~ /sliding_window|swap|gcra_take/;

    for my $n (0 .. $#clients) {
        my $pid = fork();
        die "fork: $!" if !defined $pid;

        if ($pid == 0) {
            my @replies = $clients[$n]->pipeline(substitute($name,
                                                            $args->($n)));
            POSIX::_exit($is_granted->(checked($name, @replies)) ? 1 : 0);
        }

        push @pids, $pid;
    }

    my $granted = 0;

    for my $pid (@pids) {
        waitpid($pid, 0);
        die "a client died: $?" if ($? >> 8) > 1 || $? & 127;
        $granted += $? >> 8;
    }

    return $granted;
}


sub us { return $now / 1000 + 1_000_000 * $_[0] }


sub session {
    my ($value, $user) = @_;

    return (k => '{k}', x => '{k}:x', now => us(0), ttl => 60_000,
            defined $value ? (field => 'v', value => $value)
                           : (field => 'c', value => us(0)),
            defined $user ? (owner => 'u', user => $user)
                          : (owner => 'c', user => us(0)));
}


sub user {
    my ($id, $at, $most) = @_;

    return (i => '{k}', id => $id, now => us($at), old => us(-60),
            first => $most, last => $most + 9, beyond => -($most + 1),
            ttl => 60_000);
}


sub seat {
    my ($id, $at, $most) = @_;

    return (i => '{k}', tmp => '{k}:t', id => $id, now => us($at),
            old => us(-60), limit => $most, ttl => 60_000);
}


sub client {
    my $client = $server->connect;

    is($client->command('AUTH', 'app', 'secret'), 'OK', 'AUTH') if !$redis;
    $client->command('AUTH', 'app', 'secret') if $redis;

    return $client;
}


sub clear { $admin->command('FLUSHALL') }

sub dump_of { return unpack 'H*', $admin->command('GET', $_[0]) }


sub contents {
    return join ' ', map { my $k = $_;
        "$k: @{ $admin->command('ZRANGE', $k, 0, -1, 'WITHSCORES') };" }
        sort @{ $admin->command('KEYS', '*') };
}


sub ttl_at_least {
    my ($key, $least) = @_;

    cmp_ok($admin->command('PTTL', $key), '>=', $least, "TTL of $key");
}


# the README names the rule, for keys of the prefix "coord:"

sub readme_acl {
    open(my $fh, '<', "$dir/README.md") or die "README.md: $!";
    my ($rule) = join('', <$fh>) =~ /^ *ACL (SETUSER app(?:.*\\\n)*.*)/m;

    $rule =~ s/\\\n//g;
    $rule =~ s/~coord:\*/~*/;

    return split ' ', $rule;
}


sub malformed {
    my ($what, $expected, $change) = @_;

    my $bad = File::Temp::tempdir(CLEANUP => 1);
    my $text = "# bad: test\n# keys: k\n# args: id bytes\n# reply: int\n"
               . "# atomic: yes\n# concurrent: no\nMULTI\nZREM {k} {id}\n"
               . "EXEC\n";

    $change->($text);

    open(my $fh, '>', "$bad/bad.redis") or die $!;
    print $fh $text;
    close $fh;

    my $out = `sh $dir/generate.sh $bad 2>&1`;
    isnt($?, 0, "generate.sh fails: $what");
    like($out, $expected, "generate.sh tells where: $what");
}
