#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# What a worker has read is used by all of its node as long as it would hear of
# a change: not what one has read that stands still, or whose connections are
# dead without anybody having closed them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Time::HiRes qw(sleep);

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;

my $http = <<'EOF2';
    coord_store main { server %%SERVER%%; timeout 500ms; }
    coord_lookup $value v:$arg_k ttl=1h negative_ttl=1h default=no;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Value $value always;
        add_header X-Pid $pid always;
        location / { empty_gif; }
    }
EOF2

$t->set(SERVER => "redis://127.0.0.1:$redis->{port}");


sub value { return $_[0]->get("/?k=$_[1]", timeout => 20)->header('x-value') }


# the same over a connection that is there

sub says {
    my ($c, $key) = @_;

    $c->send("GET /?k=$key HTTP/1.1\r\nHost: x\r\n\r\n");

    return $c->response('GET', 20);
}


# a value is another one in time

sub within {
    my ($value, $seconds, $name, $is) = @_;

    my $since = $t->ran;

    ok($t->wait_for(sub { $is->() eq $value }, 20), $name);

    my $took = $t->ran - $since;
    cmp_ok($took, '<', $seconds, "in less than $seconds seconds");
}


# --- a worker that stands still ---

my $a = $t->node(name => 'a', workers => 2, http => $http)->start;
$a->allow(qr/coord redis/);

ok($t->wait_for(sub {
    return 2 == grep { / flags=\w*t/ } split /\n/, $r->command(qw(CLIENT LIST));
}, 10), 'two connections are tracked');

my $watch = $redis->watch;

for my $round (1, 2) {
    my $key = "still$round";

    $r->command(SET => "v:$key", 'old');
    my $owner = $a->get("/?k=$key")->header('x-pid');
    my ($pid) = grep { $_ != $owner } $a->workers;

    $watch->seen;
    is(value($a, $key), 'old', 'a value, for all workers') for 1 .. 12;
    is($watch->calls('get'), 0, 'that one has read');

    # who connects may come to the one that stands still

    my $other;
    ok($t->wait_for(sub {
        $other = $a->connect;
        return says($other, $key)->header('x-pid') == $pid;
    }, 20), 'a connection to the other one');

    $a->hold_worker($owner);
    $r->command(SET => "v:$key", 'new');

    my $is = sub { says($other, $key)->header('x-value') };

    within('new', 4.5, 'who stands still is not trusted', $is);
    $watch->seen;
    is($is->(), 'new', 'the value') for 1 .. 6;
    is($watch->calls('get'), 0, 'is that of the other one now');

    kill 'CONT', $owner;
    $r->command(SET => "v:$key", 'newest');
    within('newest', 1.5, 'who goes on does not bring it back', $is);

    # that all are gone is heard by each, and who is the first speaks for all

    $r->command(SET => "v:all$round", 'old');
    $owner = $a->get("/?k=all$round")->header('x-pid');
    ($pid) = grep { $_ != $owner } $a->workers;

    ok($t->wait_for(sub {
        $other = $a->connect;
        return says($other, "all$round")->header('x-pid') == $pid;
    }, 20), 'a connection to the one that has not read it');

    $a->hold_worker($owner);
    $r->command('FLUSHALL');
    says($other, "asked$round");
    is(says($other, "all$round")->header('x-value'), 'no', 'FLUSHALL');

    kill 'CONT', $owner;
    $r->command(SET => "v:all$round", 'new');
    within('new', 1.5, 'and both hear of what is new',
           sub { value($a, "all$round") });
    ok($t->wait_for(sub {
        $watch->seen;
        value($a, "all$round") for 1 .. 12;
        return $watch->calls('get') == 0;
    }, 10), 'and keep it');
}

# --- a connection that is dead ---

my $fake = $t->fake_redis(upstream => $redis->{port});

$t->set(SERVER => '%%FAKE%%');
my $b = $t->node(name => 'b', workers => 1, http => $http)->start;
$b->allow(qr/coord redis/);

sub gets { return scalar(my @gets = $fake->commands('GET')) }

# it is read, and kept: what tracks keys has been told to

sub kept {
    my ($key) = @_;

    ok($t->wait_for(sub {
        my $gets = gets();
        return value($b, $key) eq 'old' && gets() == $gets;
    }, 10), "$key is kept");
}

sub on { return scalar grep { $_->[2] eq 'TRACKING' } $fake->commands('CLIENT') }

ok($t->wait_for(sub { on() == 1 }, 10), 'tracked');

$r->command(SET => 'v:tracker', 'old');
kept('tracker');

$fake->fault(action => 'stall', cmd => 'PING');
ok($t->wait_for(sub { $fake->fired('stall') == 1 }, 5),
   'a connection that hears of changes is asked, and dead');
$r->command(SET => 'v:tracker', 'new');
within('new', 4, 'what it should have told is known',
       sub { value($b, 'tracker') });
ok($t->wait_for(sub { on() == 2 }, 10), 'tracked again');

# that of the calls, where nobody asks

$fake->fault(action => 'stall', cmd => 'TIME');
ok($t->wait_for(sub { $fake->fired('stall') == 2 }, 20),
   'that for which is tracked is asked as well, now and then');
ok($t->wait_for(sub { on() == 3 }, 10), 'and another one takes its place');

# --- a server with much to tell ---

$r->command(SET => 'v:much', 'old');
kept('much');

my $pings = () = $fake->commands('PING');
my $until = $t->ran + 4;
my $gets = gets();

while ($t->ran < $until) {
    $r->command(PUBLISH => 'coord:invalidate', 'other');
    sleep 0.05;
}

is(value($b, 'much'), 'old', 'who hears all the time');
is(gets(), $gets, 'is trusted');
my $after = () = $fake->commands('PING');
cmp_ok($after - $pings, '>=', 2, 'is asked all the same');

# --- a user who may not PING ---

$r->command(qw(ACL SETUSER mute on >pw ~* &* +@all -ping));
$t->set(SERVER => "redis://mute:pw\@127.0.0.1:$redis->{port}");
my $c = $t->node(name => 'c', workers => 1, http => $http)->start;

$r->command(SET => 'v:mute', 'old');
is(value($c, 'mute'), 'old', 'who may not ask for a sign of life');

sub refused {
    my ($text) = $r->command(INFO => 'commandstats')
        =~ /^cmdstat_ping:.*rejected_calls=(\d+)/m;

    return $text // 0;
}

my $refused = refused();
ok($t->wait_for(sub { refused() >= $refused + 3 }, 20), 'is refused');
value($c, 'mute');
$watch->seen;
is(value($c, 'mute'), 'old', 'has it') for 1 .. 4;
is($watch->calls('get'), 0, 'without asking again');
ok(!$c->log_lines(qr/coord redis/), 'over the same connections');
$r->command(SET => 'v:mute', 'new');
within('new', 1.5, 'and hears of a change', sub { value($c, 'mute') });

done_testing();
