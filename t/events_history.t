#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_subscribe history: who comes back gets what he missed, in order, once.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Events;
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis('appendonly yes', 'appendfsync always');
my $r = $redis->connect;

my $http = <<'EOT';
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }

    server {
        listen 127.0.0.1:%%PORT%% backlog=1024;

        location /pub { coord_publish $arg_c $arg_m history=5000 ttl=60s;
                        empty_gif; }
        location /few { coord_publish $arg_c $arg_m history=10 ttl=300ms;
                        empty_gif; }
        location /plain { coord_publish $arg_c $arg_m; empty_gif; }

        location /events { coord_subscribe $arg_c history heartbeat=off; }
        location /two { coord_subscribe one two history; }
        location /now { coord_subscribe $arg_c; }
        location /mempub { coord_publish $arg_c $arg_m history=20 store=local;
                           empty_gif; }
        location /mem { coord_subscribe $arg_c history store=local; }
        location /memlong { coord_publish $arg_c $arg_m history=5000
                            ttl=4s store=local; empty_gif; }
        location /status { coord_status; }
    }
EOT

my $a = $t->node(name => 'a', workers => 2, http => $http)->start;
my $b = $t->node(name => 'b', workers => 2, http => $http)->start;

# one worker: what is requested in turn is published in turn
my $p = $t->node(name => 'p', workers => 1, http => $http)->start;


# --- a connection that is dead, and nobody has closed it ---

{
    my $fake = $t->fake_redis(upstream => $redis->{port});
    my $d = $t->node(name => 'd', workers => 1,
                     http => $http =~ s/%%REDIS%%/%%FAKE%%/r)->start;
    $d->allow(qr/coord redis/);

    my $es = Coord::Events->new($d, '/events?c=dead');
    ok($es->wait_text(qr/\Aid: 0-0\n\n/), 'a stream over a connection');

    my $since = $t->ran;
    $fake->fault(action => 'stall', cmd => 'PING');
    ok($t->wait_for(sub { $fake->fired('stall') }, 20), 'that dies');
    $p->get("/pub?c=dead&m=$_") for 1 .. 3;
    is(join(',', $es->data(3, 20)), '1,2,3', 'what was missed comes');
    my $took = $t->ran - $since;
    cmp_ok($took, '<', 7, "after some seconds: $took");
    $es->close;
}


# --- ids ---

my $es = Coord::Events->new($a, '/events?c=room');
is($es->status, 200, 'a stream with a history');
ok($es->wait_text(qr/\Aid: 0-0\n\n/), 'it tells where it begins');

$p->get("/pub?c=room&m=$_") for 1 .. 3;
my @e = map { $es->next } 1 .. 3;
is(join(',', map { $_->{data} } @e), '1,2,3', 'messages, in order');

my $stream = $r->command(XRANGE => 'coord:ev:{room}', '-', '+');
is_deeply([map { $_->{id} } @e], [map { $_->[0] } @$stream],
          'their ids are those of the stream');
is_deeply([map { $_->[1][1] } @$stream], [1, 2, 3], 'which has the messages');
cmp_ok($r->command(PTTL => 'coord:ev:{room}'), '>', 50_000, 'and a life');
like($es->{text}, qr/\n\nid: \d+-\d+\nevent: room\ndata: 3\n\n\z/,
     'an event on the wire');


# --- coming back ---

my $last = $e[0]{id};
my $back = Coord::Events->new($b, '/events?c=room', last => $last);
is(join(',', $back->data(2)), '2,3', 'on another node: what was missed');
$p->get('/pub?c=room&m=4');
is(join(',', $back->data(1)), '4', 'and then what is new');
is($back->next(0.3), undef, 'once');
$back->close;

$back = Coord::Events->new($b, '/events?c=room&last_event_id=' . $last);
is(join(',', $back->data(3)), '2,3,4', 'the same by the argument');
$back->close;

for (['0', '1,2,3,4', 'all of it'], ['0-0', '1,2,3,4', 'the same'],
     ['x', '', 'no id'], ['1-2-3', '', 'no id'], ['-', '', 'no id'],
     ['99999999999999999999999', '', 'no id'],
     ['0,0', '', 'positions of two channels'], ['0,', '', 'no id'],
     ['99999999999999-5', '', 'an id that is yet to come'])
{
    my ($id, $want, $what) = @$_;
    my $n = () = $want =~ /\d/g;
    my $c = Coord::Events->new($a, '/events?c=room', last => $id);

    # its worker may have heard late of what was new to the client before

    my ($data, @kept);

    while (@kept < $n) {
        ($data) = $c->data(1) or last;
        push @kept, $data if $data !~ /^now/;
    }

    is(join(',', @kept), $want, "Last-Event-ID: $id: $what");
    $r->command(PUBLISH => 'room', "now $id");

    do { ($data) = $c->data(1) } while ($data && $data =~ /^now/
                                        && $data ne "now $id");

    is($data, "now $id", 'and then what is new');
    $c->close;
}

$es->data(10);
$p->get('/pub?c=room&m=5');
is(join(',', $es->data(1)), '5', 'others hear');
my $far = Coord::Events->new($a, '/events?c=room', last => '99999999999999-5');
$p->get('/pub?c=room&m=6');
is(join(',', $far->data(1)), '6', 'an id that is yet to come hides nothing');
is(join(',', $es->data(1)), '6', 'nor from others');
$far->close;


# --- beside each other ---

# a message is sent when its request is over: each is heard before the next

my $now = Coord::Events->new($a, '/now?c=room');
my (@kept, @now);
for my $publish (sub { $p->get('/pub?c=room&m=kept') },
                 sub { $p->get('/plain?c=room&m=plain') },
                 sub { $r->command(PUBLISH => 'room', 'kept') },
                 sub { $p->get('/pub?c=room&m=kept') })
{
    $publish->();
    push @kept, map { $_->{data} . (defined $_->{id} ? '+' : '') } $es->next;
    push @now, $now->data(1);
}

is(join(',', @kept), 'kept+,plain,kept,kept+',
   'kept ones have an id, others none, each once');
is(join(',', @now), 'kept,plain,kept,kept',
   'who does not follow the history hears all');
unlike($now->{text}, qr/^id/m, 'without ids');
is($es->next(0.3), undef, 'nothing twice');
is($now->next(0.3), undef, 'nothing twice');
$now->close;

# an application that keeps its own

$r->command('MULTI');
$r->command(XADD => 'coord:ev:{room}', '*', 'm', 'own');
$r->command(PUBLISH => 'coord:ev:{room}', '');
$r->command(PUBLISH => 'room', 'own');
$r->command('EXEC');
my $own = $es->next;
is($own->{data}, 'own', 'what an application keeps');
like($own->{id}, qr/^\d+-\d+$/, 'has an id');
is($es->next(0.3), undef, 'and comes once');


# --- several channels ---

my $two = Coord::Events->new($a, '/two');
ok($two->wait_text(qr/\Aid: 0-0,0-0\n\n/), 'two channels, two positions');
is(join(',', map { $p->get("/pub?c=$_&m=$_"); $two->data(1) } qw(one two)),
   'one,two', 'both are heard');
like($two->{last}, qr/^[1-9]\d+-\d+,[1-9]\d+-\d+$/, 'an id for both');
$two->close;
$p->get("/pub?c=one&m=$_"), $p->get("/pub?c=two&m=$_") for 3 .. 5;
$two = Coord::Events->new($b, '/two', last => $two->{last});
@e = map { $two->next } 1 .. 6;
for my $c (qw(one two)) {
    is(join(',', map { $_->{data} } grep { $_->{event} eq $c } @e), '3,4,5',
       "what was missed of $c");
}
is($two->next(0.3), undef, 'and no more');
$two->close;


# --- names ---

my $odd = Coord::Events->new($a, '/events?c=caf%C3%A9!{x}');
$p->get('/pub?c=caf%C3%A9!{x}&m=odd');
is(join(',', $odd->data(1)), 'odd', 'a channel with other characters');
my ($key) = grep { /ev:\{~/ } @{$r->command(KEYS => 'coord:ev:*')};
like($key, qr/^coord:ev:\{~[0-9a-f]{32}\}$/, 'its stream has a digest');
$odd->close;


# --- pages ---

my $n = 730;
$r->pipeline(map { [XADD => 'coord:ev:{long}', '*', 'm', $_] } 1 .. $n);
my $long = Coord::Events->new($a, '/events?c=long', last => 0);
in_turn([$long->data($n)], 1 .. $n, 'a long history, in pages');
$long->close;

# so that large messages are not in memory all at once

my $text = 'x' x 120_000;
$r->pipeline(map { [XADD => 'coord:ev:{heavy}', '*', 'm', "$_-$text"] }
             1 .. 64);
$r->command(qw(CONFIG RESETSTAT));
my $heavy = Coord::Events->new($a, '/events?c=heavy', last => 0);
in_turn([map { s/-\Q$text\E\z//r } $heavy->data(64, 10)], 1 .. 64,
        'a history of large messages');
$heavy->close;
my ($calls) = $r->command(qw(INFO commandstats))
              =~ /cmdstat_xrange:calls=(\d+)/;
cmp_ok($calls, '>=', 4, 'in pages of 2 megabytes at most');


# --- while all goes on: a client moves from node to node ---

sub in_turn {
    my ($got, @want) = @_;

    my $what = pop @want;
    my ($i) = grep { ($got->[$_] // '') ne $want[$_] } 0 .. $#want;

    ok(!defined $i && @$got == @want, $what)
        or diag("after ", $i ? $want[$i - 1] : '-', ': got ',
                join(',', map { $got->[$_] // '-' } ($i // @want) .. $#$got));
}


sub publisher {
    my ($channel, $from, $to, $pause) = @_;

    my $pid = fork;
    return $t->track($pid) && $pid if $pid;

    for my $i ($from .. $to) {
        $p->get("/pub?c=$channel&m=$i");
        sleep $pause;
    }

    require POSIX;
    POSIX::_exit(0);
}

{
    my $pid = publisher('move', 1, 400, 0.004);
    my $c = Coord::Events->new($a, '/events?c=move');
    my @got;

    for my $move (1 .. 12) {
        push @got, $c->data(15, 3);
        $c->close;
        $c = Coord::Events->new($move % 2 ? $b : $a, '/events?c=move',
                                last => $c->{last});
    }

    push @got, $c->data(400 - $got[-1], 5);
    waitpid($pid, 0);
    in_turn(\@got, $got[0] .. 400,
       'moving between nodes: nothing lost, nothing twice, in order');
    is($c->next(0.3), undef, 'and nothing more');
    $c->close;
}


# --- the subscriber connections are lost again and again ---

{
    my $pid = publisher('cut', 1, 300, 0.005);
    my @c = map { Coord::Events->new($a, '/events?c=cut') } 1 .. 4;
    my @got = map { [] } @c;

    for (1 .. 8) {
        push @{$got[$_]}, $c[$_]->data(20, 2) for 0 .. 3;
        $r->command(qw(CLIENT KILL TYPE pubsub));
    }

    for my $i (0 .. 3) {
        push @{$got[$i]}, $c[$i]->data(300 - $got[$i][-1], 5);
        in_turn($got[$i], $got[$i][0] .. 300,
           'the subscription is lost: the gap is read');
    }

    waitpid($pid, 0);
    $_->close for @c;
}


# --- a worker is killed ---

{
    my $pid = publisher('kill', 1, 300, 0.005);
    my $c = Coord::Events->new($a, '/events?c=kill');
    my @got = $c->data(40, 3);

    $a->kill_worker('KILL', $_) for $a->workers;
    push @got, $c->data(1000, 0.5);
    $c = Coord::Events->new($b, '/events?c=kill', last => $c->{last});
    push @got, $c->data(300 - $got[-1], 5);

    in_turn(\@got, $got[0] .. 300,
       'killed workers: nothing lost, nothing twice, in order');
    waitpid($pid, 0);
    $c->close;
}


# --- a reload ---

{
    my $pid = publisher('reload', 1, 400, 0.005);
    my $c = Coord::Events->new($a, '/events?c=reload');
    my @got = $c->data(40, 3);

    my @old = $a->reload;
    push @got, $c->data(1000, 0.7);
    ok($c->ended(3), 'a reload ends the stream');
    like($c->{retry}, qr/^\d+$/, 'and tells when to come back');
    cmp_ok($c->{retry}, '>=', 500, 'not all at once');
    ok($a->wait_gone(5, @old), 'the old workers are gone');

    $c = Coord::Events->new($a, '/events?c=reload', last => $c->{last});
    push @got, $c->data(400 - $got[-1], 5);
    in_turn(\@got, $got[0] .. 400,
       'a reload: nothing lost, nothing twice, in order');
    waitpid($pid, 0);
    $c->close;
}


# --- Redis is restarted ---

{
    my $c = Coord::Events->new($a, '/events?c=down');
    $p->get("/pub?c=down&m=$_") for 1 .. 3;
    is(join(',', $c->data(3)), '1,2,3', 'before Redis goes');

    $redis->stop('KILL');
    $p->get("/pub?c=down&m=$_") for 4 .. 6;
    $redis->run;
    $r = $redis->connect;

    ok($t->wait_for(sub {
        return $b->get('/status?format=prometheus')->body
               =~ /^coord_store_workers\{store="main"\} 2$/m;
    }, 20), 'Redis is back');
    $p->get("/pub?c=down&m=7");

    is(join(',', $c->data(4, 10)), '4,5,6,7',
       'what was published meanwhile, and then, is heard');
    is($c->next(0.3), undef, 'once');
    $c->close;
}


# --- a stream that is another one ---

{
    my $c = Coord::Events->new($a, '/events?c=flush');
    $p->get('/pub?c=flush&m=1');
    is(join(',', $c->data(1)), '1', 'before a flush');
    $r->command('FLUSHALL');
    $p->get('/pub?c=flush&m=2');
    is(join(',', $c->data(1)), '2', 'after it');
    $r->command(DEL => 'coord:ev:{flush}');
    $r->command(SET => 'coord:ev:{flush}', 'no stream');
    $p->get('/pub?c=flush&m=3');
    ok($p->wait_log(qr/may be lost/), 'a key of another type: it is told');
    $r->command(DEL => 'coord:ev:{flush}');
    $p->get('/pub?c=flush&m=4');
    is(join(',', grep { $_ != 3 } $c->data(2, 2)), '4', 'and it goes on');
    $c->close;
}

# what is kept is not much

$b->get("/few?c=few&m=$_") for 1 .. 400;
cmp_ok($r->command(XLEN => 'coord:ev:{few}'), '<', 250, 'history=10: about');
ok($t->wait_for(sub { $r->command(EXISTS => 'coord:ev:{few}') == 0 }),
   'and its life ends');


# --- memory ---

my $m = Coord::Events->new($a, '/mem?c=m');
ok($m->wait_text(qr/\Aid: \d+-\d+\n\n/), 'memory: it tells where it begins');
my @m = map {
    $a->get("/mempub?c=other&m=$_");
    $a->get("/mempub?c=m&m=$_");
    $m->data(1);
} 1 .. 30;
in_turn(\@m, 1 .. 30, 'memory: in order');
my $c = Coord::Events->new($a, '/mem?c=m', last => $m->{last});
$a->get('/mempub?c=m&m=31');
is(join(',', $c->data(1)), '31', 'memory: who has all hears what is new');
$m->close;
$c->close;

$c = Coord::Events->new($a, '/mem?c=m', last => $m->{last});
is(join(',', $c->data(1)), '31', 'memory: what was missed');
$c->close;
$c = Coord::Events->new($a, '/mem?c=m', last => '0');
is(join(',', $c->data(20)), join(',', 12 .. 31), 'memory: history=20');
is($c->next(0.2), undef, 'and no more');
$c->close;

my @old = $a->reload;
$c = Coord::Events->new($a, '/mem?c=m', last => '0');
is(join(',', $c->data(20)), join(',', 12 .. 31), 'memory: after a reload');
$c->close;

$m = Coord::Events->new($a, '/mem?c=l');
in_turn([map { $a->get("/memlong?c=l&m=$_"); $m->data(1) } 1 .. 250],
        1 .. 250, 'memory: as they are published');
$m->close;
$c = Coord::Events->new($a, '/mem?c=l', last => '0');
in_turn([$c->data(250)], 1 .. 250, 'memory: in pages');
$c->close;
ok($t->wait_for(sub {
    $c = Coord::Events->new($a, '/mem?c=l', last => '0');
    my $none = !defined $c->next(0.2);
    $c->close;
    return $none;
}), 'memory: the life of a history');

# the ring is full several times over

my $big = 'x' x 7000;
$m = Coord::Events->new($a, '/mem?c=r');
my @got;
for my $i (1 .. 1500) {
    $a->get("/mempub?c=r&m=$i-$big");
    push @got, map { s/-x*//r } $m->data(1);
}
in_turn(\@got, 1 .. 1500, 'memory: more than there is room');
$m->close;

$_->close for $es;

done_testing();
