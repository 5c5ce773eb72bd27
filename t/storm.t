#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A storm: two nodes with two workers each under load while workers are killed,
# nodes reloaded, Redis stopped, killed and frozen.  Payments are repeated until
# they have a final answer.  Twenty seconds; STORM_SECONDS=300 for a long one,
# STORM_SEED=n for the same events again, STORM_EVENTS=stop,freeze for these
# only.
#
# What may be lost is what a killed worker had in hand, and nothing else.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP;
use Coord::Util qw(alive slurp);

use POSIX ();
use Time::HiRes qw(sleep time);

my $seconds = $ENV{STORM_SECONDS} || 20;
my $seed = $ENV{STORM_SEED} || int(rand(1000000));

srand($seed);

my $t = Coord->new(time_limit => $seconds + 240);

# what Redis has answered it has on disk
my $redis = $t->redis('appendonly yes', 'appendfsync always');

my $origin = $t->origin(default => sub {
    my ($req) = @_;
    my $key = $req->{headers}{'idempotency-key'};

    return { delay => rand(0.04), headers => ['X-Origin' => 1],
             body => 'done: ' . ($key ? $key->[0] : $req->{uri}) };
});

my %opt = (workers => 2, main => 'worker_shutdown_timeout 30s;',
           http => <<'EOF');
    coord_store main { server %%REDIS%%; timeout 200ms; connect_timeout 200ms;
                       breaker failures=5 cooldown=200ms; }
    coord_limit_conn_zone $arg_k zone=conn:1m lease=100s;
    coord_limit_req_zone $arg_k zone=req:1m rate=2r/s;
    coord_lock_zone $arg_k zone=lock:1m lease=100s;

    coord_idempotency_lease 2s;
    coord_idempotency_on_unknown conflict;
    coord_idempotency_scope $http_authorization;

    server {
        listen 127.0.0.1:%%PORT%%;
        location /pay {
            coord_idempotency required on_failure=closed;
            proxy_next_upstream off;
            proxy_pass http://%%ORIGIN%%;
        }
        location /conn { coord_limit_conn conn 2 wait=2s queue=5;
                         proxy_pass http://%%ORIGIN%%; }
        location /lock { coord_lock zone=lock wait=1s;
                         proxy_pass http://%%ORIGIN%%; }
        location /req { coord_limit_req zone=req burst=5 nodelay
                                        on_failure=closed;
                        empty_gif; }
    }
EOF

my @nodes = map { $t->node(name => $_, %opt)->start } qw(a b);
$_->{kills} = 1 for @nodes;

note("STORM_SEED=$seed STORM_SECONDS=$seconds");


# Clients.  A line each: what, key, node, when it began and ended, status, "ok"
# when the body is that of the key, whether it was given up.

my ($until, $last) = (time + $seconds, time + $seconds + 30);

sub client {
    my ($n, $code) = @_;

    my $file = $t->file("client$n");
    my $pid = fork();
    die "fork: $!" if !defined $pid;

    if ($pid == 0) {
        $SIG{$_} = 'DEFAULT' for qw(TERM INT ALRM);
        srand($seed + 1 + $n);

        open(my $fh, '>', $file) or POSIX::_exit(1);
        eval { $code->("c$n", $fh) };
        print $fh "died $@\n" if $@;
        close $fh;
        POSIX::_exit(0);
    }

    return { pid => $pid, file => $file };
}


# the same request to these nodes at once; returns the responses

sub ask {
    my ($fh, $what, $key, $to, %r) = @_;

    my $start = time;
    my @got = Coord::HTTP::parallel(
        [map { { port => $nodes[$_]->port, path => "/$what", %r } } @$to],
        timeout => $r{timeout} || 20);
    my $end = time;

    for my $i (0 .. $#got) {
        my $r = $got[$i];
        my $good = $r->{complete}
                   && ($r->status != 200 || $what =~ /^req/
                       || $r->body eq 'done: ' . ($key || "/$what"));

        printf $fh "%s %s %d %.3f %.3f %d %s %s\n", $what =~ /^(\w+)/,
            $key || '-', $to->[$i], $start, $end, $r->status,
            $good ? 'ok' : 'bad', $r{timeout} ? 'given up' : $r->{error} || '-';
    }

    return @got;
}


# a payment: now and then to both nodes at once, or by a client that does not
# wait for the answer; then again until there is one

sub pays {
    my ($name, $fh) = @_;

    for (my $n = 1; time < $until; $n++) {
        my $key = "$name-$n";
        my %r = (method => 'POST', body => "amount=$n", headers => [
            'Idempotency-Key' => $key, 'Authorization' => $name ]);

        ask($fh, 'pay', $key, [int(rand(2))], %r, timeout => 0.01)
            if rand() < 0.1;

        # nothing but that it is in doubt, for long after the storm: so it stays

        my $doubt;

        while (time < $last) {
            my @to = rand() < 0.2 ? (0, 1) : (int(rand(2)));
            my @got = ask($fh, 'pay', $key, \@to, %r);

            last if grep { $_->status == 200 } @got;

            $doubt = undef if time < $until || grep { $_->status != 409 } @got;
            $doubt //= $t->ran;
            last if $t->ran - $doubt > 10;

            sleep 0.05 + rand(0.15);
        }
    }
}


sub others {
    my ($what, $gives_up) = @_;

    return sub {
        my ($name, $fh) = @_;

        while (time < $until) {
            my $leaves = rand() < $gives_up ? 0.02 + rand(0.3) : 0;

            ask($fh, "$what?k=" . int(rand(3)), '', [int(rand(2))],
                $leaves ? (timeout => $leaves) : ());
            sleep rand(0.03);
        }
    };
}


my @clients = map { client($_->[0], $_->[1]) }
              (map { [$_, \&pays] } 1 .. 6),
              (map { [$_, others('conn', 0.2)] } 7 .. 16),
              (map { [$_, others('lock', 0.2)] } 17, 18),
              (map { [$_, others('req', 0)] } 19, 20);

$t->track(map { $_->{pid} } @clients);


# what happens to them; a killed worker is remembered with its time

my (@kills, %events);

my %event = (
    kill => sub {
        my $n = int(rand(2));
        my @pids = $nodes[$n]->workers or return;
        push @kills, [$n, time];
        kill 'KILL', $pids[rand @pids];
    },
    reload => sub { $nodes[rand 2]->signal('HUP') },
    freeze => sub {
        $redis->freeze;
        sleep 0.1 + rand(1);
        kill 'CONT', $redis->{pid};
    },
    stop => sub { $redis->stop; sleep rand(1); $redis->run },
    crash => sub { $redis->stop('KILL'); sleep rand(1); $redis->run },
    both => sub {
        $redis->stop;
        $nodes[rand 2]->signal('HUP');
        sleep rand(0.5);
        $redis->run;
    },
);

my @names = $ENV{STORM_EVENTS} ? split /,/, $ENV{STORM_EVENTS}
                               : sort keys %event;
sleep 1;

while (time < $until - 1) {
    my $name = $names[rand @names];

    $events{$name}++;
    $event{$name}->();
    sleep 0.2 + rand(1.2);
}

note(join ', ', map { "$_ $events{$_}" } sort keys %events);


# it is over: all payments get their answer

$t->wait_for(sub { !grep { alive($_->{pid}) } @clients }, 90)
    or fail('the clients end');

my @seen = map { [split / /, $_, 8] }
           map { split /\n/, slurp($_->{file}) } @clients;

my %count;
$count{$_->[0]}{$_->[5]}++ for @seen;

for my $what (sort keys %count) {
    my $of = $count{$what};
    note("$what: ", join ', ', map { "$of->{$_} of $_" } sort keys %$of);
}

is(scalar(grep { $_->[0] eq 'died' } @seen), 0, 'the clients live');


my %executed;

for my $line (split /\n/, slurp($origin->{file})) {
    next if $line !~ /"event":"request"/;
    $executed{$1}++ if $line =~ /"idempotency-key":\["([^"]+)"\]/;
}


# lost: no answer, and no worker of that node was killed meanwhile

my @lost = grep { $_->[7] ne 'given up' && $_->[5] == 0 } @seen;
my %hit;

my @unexplained = grep {
    my $r = $_;
    my $killed = grep { $_->[0] == $r->[2] && $_->[1] > $r->[3] - 1
                        && $_->[1] < $r->[4] + 1 } @kills;
    $hit{$r->[1]} = 1 if $killed;
    !$killed;
} @lost;

# So it is with what was executed for a client that does not wait any more: its
# worker has the result until Redis takes it, at most as long as the lease.
for my $r (grep { $_->[0] eq 'pay' && $_->[7] eq 'given up'
                  && $executed{$_->[1]} } @seen)
{
    $hit{$r->[1]} = 1 if grep { $_->[0] == $r->[2] && $_->[1] > $r->[3] - 1
                                && $_->[1] < $r->[4] + 3 } @kills;
}

is(scalar @unexplained, 0, 'no request is lost but by killed workers')
    or diag(map { "@$_\n" } splice(@unexplained, 0, 5));
note(scalar(@seen) . ' requests, ' . @lost . ' lost by ' . @kills
     . ' killed workers');


# payments

my %paid;

for my $r (grep { $_->[0] eq 'pay' } @seen) {
    my $p = $paid{$r->[1]} ||= {};

    $p->{final} = 1 if $r->[5] == 200;
    $p->{wrong}++ if $r->[6] ne 'ok' && $r->[5] == 200;
    $p->{other} = $r->[5] if $r->[5] !~ /^(?:0|200|409|503)$/;
}

my @keys = sort keys %paid;
cmp_ok(scalar @keys, '>', 2 * $seconds, @keys . ' payments');

sub none {
    my ($what, @which) = @_;

    is(scalar @which, 0, $what) or diag(join ' ', splice(@which, 0, 20));
}

# what has become of some payments

sub diagnose {
    my %which = map { $_ => 1 } @_;

    diag("@$_") for grep { $which{$_->[1]} } @seen;
    diag("killed: @$_") for %which ? @kills : ();
    diag("$_->{name}: ", grep { /could not be stored/ } $_->log_lines(qr/./))
        for %which ? @nodes : ();
}

none('no wrong answer', grep { $paid{$_}{wrong} } @keys);
none('no answer that means nothing', grep { $paid{$_}{other} } @keys);
none('no payment is executed twice', grep { ($executed{$_} || 0) > 1 } @keys);

# what a killed worker had not begun is free, also where it was in doubt

none('no payment is never executed',
     grep { !$executed{$_} && !$hit{$_} } @keys);

my @open = grep { !$paid{$_}{final} && !$hit{$_} } @keys;

none('each has its answer, but for those that a killed worker had in hand',
     @open);
diagnose(@open);

note(scalar(grep { !$executed{$_} } @keys) . ' not executed, '
     . scalar(grep { !$paid{$_}{final} } @keys) . ' without an answer');

none('and no answer comes from nowhere',
     grep { $paid{$_}{final} && !$executed{$_} } @keys);


# a limit that is closed in doubt is never exceeded: capacity 6, and 2r/s

{
    my @passed = grep { $_->[0] eq 'req' && $_->[5] == 200 } @seen;
    my $most = 3 * (6 + 2 * ($seconds + 2));

    cmp_ok(scalar @passed, '<=', $most, 'the rate holds');
    cmp_ok(scalar @passed, '>', $most / 5, 'and lets through');
}


# leases: all are given back, long before they are over; nobody stands in line

my $admin = $redis->connect;

sub left {
    my ($pattern) = @_;

    return map { my $key = $_;
                 map { "$key $_" } @{$admin->command('ZRANGE', $key, 0, -1)} }
           grep { !/:tmp$/ } @{$admin->command('KEYS', $pattern)};
}

my $end = time + 20;
my @left;

for my $what (['coord:cc:*}', 'no lease'], ['coord:lk:*}', 'no lock'],
              ['coord:*:w', 'nobody in line'])
{
    my ($pattern, $name) = @$what;

    $t->wait_for(sub { @left = left($pattern); !@left }, $end - time);
    none("$name is left", @left);
}

for my $node (@nodes) {
    my $r = $node->get('/conn?k=0', timeout => 10);
    is($r->status, 200, "node $node->{name} lets through at once");
    cmp_ok($r->{ran}, '<', 1.5, 'without a wait');
}

done_testing();
