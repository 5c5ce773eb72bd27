#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Redis with sentinels: the master is found, lost, and found again.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Sentinel;
use JSON::PP qw(decode_json);
use Time::HiRes qw(sleep time);

my $t = Coord->new(time_limit => 240);
my $s = Coord::Sentinel->start($t);

$t->set(SENTINELS => $s->lines);

my $conf = <<'EOF';
    coord_store main { %%SENTINELS%% mode sentinel=mymaster; timeout 200ms;
                       connect_timeout 500ms; }
    coord_limit_req_zone $arg_k zone=one:1m rate=1r/h;
    coord_limit_conn_zone $arg_k zone=conn:1m;
    server {
        listen 127.0.0.1:%%PORT%%;
        location / { coord_limit_req zone=one burst=9 nodelay; empty_gif; }
        location /conn { coord_limit_conn conn 1 wait=1s; empty_gif; }
        location /closed { coord_limit_req zone=one on_failure=closed;
                           empty_gif; }
        location /health { coord_health; }
    }
EOF

my @n = map { $t->node(name => "n$_", http => $conf)->start } 1, 2;

sub decides {
    my ($n) = @_;

    return defined $n->get('/?k=' . rand)->header('RateLimit');
}

sub exact {
    my ($name) = @_;

    my %got;

    # where Redis has no answer in time, requests pass without one

    $t->wait_for(sub {
        my $k = rand;
        my @r = $t->parallel([ map { $n[$_ % 2]->req("/?k=$k") } 1 .. 40 ]);

        %got = ();
        $got{$_->status}++ for @r;

        return !grep { !defined $_->header('RateLimit') } @r;
    });

    is_deeply(\%got, { 200 => 10, 429 => 30 }, "$name: the limit is exact");
}

# until both nodes decide again; all answers meanwhile are answers

my %seen;

sub recovers {
    my ($name, $since, $limit) = @_;

    for my $n (@n) {
        $t->wait_for(sub {
            my $r = $n->get('/?k=' . rand);
            $seen{$r->status}++;
            return defined $r->header('RateLimit');
        }, 15);
    }

    cmp_ok($t->ran - $since, '<', $limit, "$name: decided again");
}

ok($t->wait_for(sub { decides($_) }, 10), 'the master is found') for @n;
is($n[0]->get('/conn?k=1')->status, 200, 'and the connection for messages');
exact('at first');

sub server {
    my ($n) = @_;

    my $stores = decode_json($n->get('/health')->body)->{stores};

    return (ref $stores eq 'HASH' ? $stores->{main} : $stores->[0])->{server}
           || {};
}

my ($was, $follows) = ($s->master, $s->replica);
ok($t->wait_for(sub { @{server($n[0])->{replicas} || []} == 1 }, 5),
   'health: the replica is seen');
my $server = server($n[0]);
is($server->{role}, 'master', 'health: role');
is($server->{address}, "127.0.0.1:$was->{port}", 'health: address');
is($server->{replicas}[0]{address}, "127.0.0.1:$follows->{port}",
   'health: its address');
cmp_ok($server->{replicas}[0]{lag_seconds}, '<', 5, 'health: and its lag');
is($server->{sentinel}{master}, 'mymaster', 'health: the name of the master');
is($server->{sentinel}{sentinels}, 3, 'health: sentinels');
is($server->{sentinel}{last_failover}, undef, 'health: no failover yet');

my $clients = $s->master->connect->command('CLIENT', 'LIST');
cmp_ok(scalar(() = $clients =~ /name=ngx_coord:main/g), '>=', 4,
       'all are on the master');
unlike($s->replica->connect->command('CLIENT', 'LIST'), qr/name=ngx_coord/,
       'none is on the replica');


# the master is killed under load

my $old = $s->master;
my $new = $s->replica;

$old->stop('KILL');

my $promoted;
my $began = $t->ran;
while ($t->ran - $began < 20 && !$promoted) {
    $seen{$n[$_]->get('/?k=' . rand)->status}++ for 0, 1;
    my $role = eval { $new->connect->command('ROLE')->[0] } || '';
    $promoted = $t->ran if $role eq 'master';
}

ok($promoted, 'the replica is promoted');
recovers('killed', $promoted, 2);
exact('on the new master');
ok($s->failed_over(60), 'all sentinels have agreed');
like($_->log, qr/\[warn\].*the master is 127\.0\.0\.1:$new->{port} now/,
     'the log tells of it') for @n;


ok($t->wait_for(sub { server($n[0])->{sentinel}{last_failover} }, 5),
   'health: the failover');
is(server($n[0])->{address}, "127.0.0.1:$new->{port}",
   'health: the new address');


# the old one comes back as a replica, and is promoted by hand, under load;
# sentinels that stood still for two seconds do nothing for 30

$old->run;
ok($t->wait_for(sub { (eval { $old->connect->command('INFO', 'replication') }
                       || '') =~ /role:slave.*master_link_status:up/s }, 90),
   'the old one is a replica now');
ok($t->wait_for(sub { $s->known }, 90), 'which the sentinels know');
exact('still on the new one');

undef $promoted;
$began = $t->ran;
while ($t->ran - $began < 40 && !$promoted) {
    $s->{sentinels}[0]->connect->command('SENTINEL', 'FAILOVER', 'mymaster');
    $seen{$n[$_]->get('/?k=' . rand)->status}++ for 0, 1;
    my $role = eval { $old->connect->command('ROLE')->[0] } || '';
    $promoted = $t->ran if $role eq 'master';
}
ok($promoted, 'a failover by hand');
for my $n (@n) {
    ok($t->wait_for(sub {
        server($n)->{address} eq "127.0.0.1:$old->{port}" }, 5),
       'both nodes have moved');
}
recovers('by hand', $promoted, 5);
exact('after it');
ok($s->failed_over(60), 'all sentinels have agreed');

is_deeply(\%seen, { 200 => $seen{200} }, 'no request was lost');


# demoted by somebody, with sentinels that still name it

my ($master, $other) = ($s->master, $s->replica);
is($master->{port}, $old->{port}, 'the sentinels name it');
my $said = '';
ok($t->wait_for(sub {
    $said = eval { $master->connect->command('REPLICAOF', '127.0.0.1',
                                             $other->{port}) } || $@;
    return $said =~ /^OK/;
}, 10), 'it is demoted') or diag($said);

ok($t->wait_for(sub { !decides($n[0]) }, 5), 'demoted: by on_failure');
is($n[0]->get('/closed?k=1')->status, 503, 'closed as well');
ok($n[0]->wait_log(qr/sentinels name a server that is no master but a: slave/,
                   30), 'it is looked at before it is used');
$began = time;
$master->connect->command('REPLICAOF', 'NO', 'ONE');
recovers('master again', $began, 3);


# sentinels that die

sub reconnected {
    my ($name) = @_;

    eval { $_->connect->command('CLIENT', 'KILL', 'TYPE', 'normal') }
        for @{$s->{servers}};
    my $r = $t->wait_for(sub { decides($n[0]) && decides($n[1]) }, 8);
    ok($r, $name);
}

$s->{sentinels}[0]->stop('KILL');
reconnected('one sentinel is dead');
$s->{sentinels}[1]->stop('KILL');
reconnected('two are');
kill 'STOP', $s->{sentinels}[2]{pid};
reconnected('and the third is frozen');
$s->{sentinels}[2]->stop('KILL');
reconnected('all are dead: the last master serves');
ok($n[0]->wait_log(qr/no sentinel answers; the last master: 127\.0\.0\.1/, 10),
   'which is told');

# workers that never heard of a master: their node has

$n[0]->wait_gone(20, $n[0]->reload);
reconnected('a reload while all are dead');
$n[0]->kill_worker('KILL', $_) for $n[0]->workers;
reconnected('workers that were killed meanwhile');
exact('the limits of a node that was reloaded');

# of another master of the same sentinels nothing is known

my $fresh = $t->node(name => 'fresh', http => $conf =~ s/mymaster/another/r);
$fresh->start;
ok($fresh->wait_log(qr/no sentinel answers; the last master: another/, 10),
   'a node that was started while all are dead has no master');
ok(!decides($fresh), 'and no decisions');
$fresh->stop;

$_->run for @{$s->{sentinels}};
reconnected('they are back');


# a sentinel that is cut off still names who was master: a server that is gone,
# or that does not answer; it is the first to be asked by half of the workers

{
    my $gone = $t->fake_redis;
    my $mute = $t->fake_redis;
    $gone->stop;
    $mute->freeze;

    for my $case ([ 'is gone', $gone ], [ 'does not answer', $mute ]) {
        my ($what, $named) = @$case;
        my $port = $named->port;

        my $stale = $t->fake_redis(on => {
            SENTINEL => sub {
                return "*2\r\n\$9\r\n127.0.0.1\r\n\$" . length($port)
                       . "\r\n$port\r\n";
            },
        });

        $t->set(STALE => $stale->addr,
                SENTINEL => ($s->lines =~ /^([^;]*;)/)[0]);

        my $l = $t->node(name => "late$port", workers => 8,
                         http => <<'EOF')->start;
    coord_store main { server redis://%%STALE%%; %%SENTINEL%%
                       mode sentinel=mymaster; timeout 200ms;
                       connect_timeout 500ms; }
    coord_limit_req_zone $arg_k zone=one:1m rate=1r/h;
    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Status $coord_limit_req_status always;
        add_header X-Pid $pid always;
        location / { coord_limit_req zone=one burst=999 nodelay; empty_gif; }
    }
EOF

        # each worker chooses by chance: that none of 8 asks it happens

        my $asked;

        for (1 .. 5) {
            ok($t->wait_for(sub {
                   my @r = $l->parallel(80, '/?k=' . rand);
                   my %pids = map { $_->header('X-Pid') => 1 } @r;
                   return 6 < keys %pids
                          && !grep { $_->header('X-Status') ne 'PASSED' } @r;
               }, 20),
               "it names a server that $what: another sentinel is asked");

            $asked = $stale->commands('SENTINEL') and last;
            $l->reload;
        }

        ok($asked, 'it was asked');
        $l->stop;
    }
}


# configuration

my $u = $t->node(name => 'u', http => <<'EOF')->start;
    coord_store main { %%SENTINELS%% mode sentinel=nobody; timeout 200ms; }
    coord_limit_req_zone $arg_k zone=one:1m rate=1r/h;
    server { listen 127.0.0.1:%%PORT%%;
             location / { coord_limit_req zone=one; empty_gif; } }
EOF

ok($u->wait_log(qr/\[error\].*sentinels do not know a master: nobody/, 10),
   'a name that no sentinel knows');
is($u->get('/')->status, 200, 'is as if Redis were away');

like($t->conf_error(http => 'coord_store s { server redis://127.0.0.1:1; '
                            . 'mode sentinel=; }'),
     qr/no name of a master/, 'the name is missing');
is($t->conf_error(http => 'coord_store s { server redis://127.0.0.1; '
                          . 'server redis://:p@127.0.0.2; '
                          . 'mode sentinel=m; }'), '', 'good');

done_testing();
