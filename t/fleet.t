#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# The status page of any node shows all nodes of the store, each and together;
# who falls silent is marked, then gone; what others write into the summaries
# harms nobody.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

use JSON::PP;

my $t = Coord->new;
my $redis = $t->redis;
my $admin = $redis->connect;

my $http = <<'EOF';
    coord_store main { server %%REDIS%%; timeout 5s; connect_timeout 5s; }

    coord_limit_req_zone $arg_k zone=one:1m rate=1r/h;
    coord_limit_conn_zone $arg_k "zone=two words:1m";

    server {
        listen 127.0.0.1:%%PORT%%;

        location / {
            coord_limit_req zone=one burst=2 nodelay;
            coord_limit_conn "two words" 10;
            empty_gif;
        }

        location = /status { coord_status; }
    }
EOF

my ($a, $b) = map {
    $t->node(name => $_, workers => 2, http => $http)->start
} 'a', 'b';

sub fleet { decode_json($_[0]->get('/status?format=json')->body)->{fleet} }
sub others { grep { !$_->{self} } @{ fleet($_[0])->{nodes} } }
sub zone { (grep { $_->{zone} eq $_[1] } @{ fleet($_[0])->{zones} })[0] }

$a->get('/?k=1') for 1 .. 4;
$b->get('/?k=1') for 1 .. 2;


ok($t->wait_for(sub { others($a) == 1 && others($b) == 1 }, 20),
   'each of two nodes sees the other one');

my ($own) = grep { $_->{self} } @{ fleet($a)->{nodes} };
my @keys = @{ $admin->command('KEYS', 'coord:st:*') };

is(scalar @keys, 2, 'a summary of each in the store');
ok((grep { $_ eq "coord:st:$own->{node}" } @keys), 'under its name');

for my $key (@keys, 'coord:st') {
    my $ttl = $admin->command('PTTL', $key);
    ok($ttl > 0 && $ttl <= 15000, "$key lapses by itself");
}

my $host = `uname -n` =~ s/\s+\z//r;
like($own->{node}, qr/^\Q$host\E-[0-9a-f]{8}$/, 'the name of the host in it');

is($own->{workers}, 2, 'workers');
is($own->{total}, 4 + 3, 'decisions of this node, to the last one');
is($own->{refused}, 1, 'refused ones');
is((others($b))[0]{node}, $own->{node}, 'the other one gives it that name');


# sums

ok($t->wait_for(sub {
    my $z = zone($b, 'one');
    $z && $z->{nodes} == 2 && $z->{total} == 6 && $z->{refused} == 3
}, 20), 'a zone of both nodes, summed up on the other one')
    or diag(explain(fleet($b)));

# the zones with a key: six requests, and the places of those that passed

my $sum = fleet($b)->{sum};
is("@$sum{qw(nodes workers total refused)}", '2 4 9 3',
   'and all of both nodes');

is(zone($a, 'two words')->{feature}, 'limit_conn', 'a name with a blank');

# what it has heard may be of the first moment of the other one

my $page;
my $name = (others($a))[0]{node};
$t->wait_for(sub {
    $page = $a->get('/status?format=html')->body;
    return $page =~ m{<td>\Q$name\E</td><td>[\d.]+</td><td>2</td>};
}, 20);
like($page, qr{<section id="fleet"><h2 class="title">}, 'the page has the fleet');
like($page, qr{<td>\Q$name\E</td><td>[\d.]+</td><td>2</td>},
     'and the other node in it');


# what is no summary, or lies about its name, is not shown

my %bad = (
    'evil-1' => '<script>alert(1)</script>',
    'evil-2' => 'coord 1 evil-2 1.2.3 1 1 1',
    'evil-3' => "coord 2 evil-3 1.2.3 1 1 1 0\n",
    'evil-4' => $admin->command('GET', "coord:st:$name"),
    'evil-5' => "coord 1 evil-5 1.2.3 x 1 1 0\n",
    'evil-6' => 'x' x 100_000,
    'evil-7' => "coord 1 evil-7 1.2.3 1 1 1 0\nzone limit_req 1 1 1 1 1 1\n",
    "evil\n8" => "coord 1 evil\n8 1.2.3 1 1 1 0\n",
    'evil' x 100 => 'x',
);

# a good one is the sign that all have been read

my $good = 'good-"<b>&-1';
my $text = "coord 1 $good 1.2.3 17 5 3 0\nlater thing\n"
           . "zone limit_req 10 5 0 6 3 0 one\nzone broken\n";

my $far = $admin->command('TIME')->[0] * 1_000_000 + 3_600_000_000;

for my $evil (sort keys %bad) {
    $admin->command('SET', "coord:st:$evil", $bad{$evil}, 'EX', 60);
    $admin->command('ZADD', 'coord:st', $far, $evil);
}

$admin->command('LPUSH', 'coord:st:evil-9', 'x');
$admin->command('ZADD', 'coord:st', $far, 'evil-9');
$admin->command('SET', "coord:st:$good", $text, 'EX', 60);
$admin->command('ZADD', 'coord:st', $far + 1, $good);

ok($t->wait_for(sub { grep { $_->{node} eq $good } others($a) }, 20),
   'a summary by hand is shown');

my %seen = map { $_->{node} => $_ } others($a);
is(join(' ', sort keys %seen), join(' ', sort $good, $name, 'evil-7'),
   'and no bad one; one whose zones are bad has none');
is($seen{$good}{total}, 10, 'what is good in it counts');
is($seen{'evil-7'}{total}, 0, 'what is not does not');
is(zone($a, 'one')->{total}, 16, 'it is in the sum');

like($a->get('/status?format=html')->body,
     qr{<td>good-&quot;&lt;b&gt;&amp;-1}, 'names are escaped');

$admin->command('DEL', 'coord:st', map { "coord:st:$_" } keys %bad, $good);


# a node that is gone: a mark first, then nothing

$b->stop;

my $fleet;

ok($t->wait_for(sub {
    $fleet = fleet($a);
    my @others = grep { !$_->{self} } @{ $fleet->{nodes} };
    my ($n) = grep { $_->{node} eq $name } @others;

    # the one by hand may have been read later

    return $n && $n->{silent} && $n->{age_ms} >= 8000
           && !grep { !$_->{silent} } @others;
}, 30), 'a node that is silent is marked');

like($a->get('/status?format=html')->body,
     qr{<tr class="silent"><td>\Q$name\E <small>silent for \d+ s</small>},
     'on the page as well');

is((grep { $_->{zone} eq 'one' } @{ $fleet->{zones} })[0]{nodes}, 1,
   'it is not in the sum');

ok($t->wait_for(sub { !grep { $_->{node} eq $name } others($a) }, 30),
   'and then it is gone');
ok($t->wait_for(sub { !$admin->command('EXISTS', "coord:st:$name") }, 10),
   'so is its summary');

sub lost { grep { $_->{node} eq $name } @{ fleet($_[0])->{lost} } }

my ($lost) = lost($a);
ok($lost, 'but it is remembered');
cmp_ok($lost->{age_ms}, '>=', 15000, 'and how long it is gone');
like($a->get('/status?format=html')->body,
     qr{<section id="fleet">.*<p id="lost"[^>]*>not there any more: .*\Q$name\E \(last heard of \d+ (?:s|min) ago\).*</p>}s,
     'on the page as well');


# who is gone is missed, but for those whose place another one of their host has
# taken: that began after their last news, by their own clock, or upgrades them

my $now = time * 1000;

sub by_hand {
    my ($node, $time, $uptime, @processes) = @_;
    my $at = $admin->command('TIME')->[0] * 1_000_000 + 3_600_000_000;

    $admin->command('SET', "coord:st:$node", join(' ', 'coord', 1, $node,
                    '1.2.3', $now + $time, $uptime, 1, 0, @processes) . "\n",
                    'EX', 60);
    $admin->command('ZADD', 'coord:st', $at, $node);
}

by_hand(@$_) for (
    [ "$host-00000001", 0, 100 ],
    [ "$host-00000002", 13_000, 14 ],

    # the first, the second and the third time

    [ 'anew-00000001', 0, 100 ],
    [ 'anew-00000002', 14_000, 14 ],

    [ 'gone-00000001', 0, 100 ],
    [ 'gone-00000002', 14_000, 14 ],

    [ 'upgraded-00000001', 5000, 100, 11, 0 ],
    [ 'upgraded-00000002', 5000, 3, 12, 11 ],

    [ 'given-up-00000001', 5000, 3, 12, 11 ],
    [ 'given-up-00000002', 5000, 100, 11, 0 ],

    [ 'other-00000001', 5000, 100, 11, 0 ],
    [ 'other-00000002', 5000, 3, 12, 13 ],
    [ 'another-00000001', 5000, 100, 0, 0 ],
    [ 'another-00000002', 5000, 3, 0, 0 ],
);

my @gone = ("$host-00000001", 'gone-00000002',
            map { "$_-00000001" } 'anew', 'gone', 'upgraded', 'given-up',
                                  'other', 'another');
my @stay = ("$host-00000002", map { "$_-00000002" } 'anew', 'upgraded',
                                  'given-up', 'other', 'another');

ok($t->wait_for(sub {
    my %there = map { $_->{node} => 1 } others($a);

    return @gone + @stay == grep { $there{$_} } @gone, @stay;
}, 30), 'those of several hosts are heard of');

$admin->command('DEL', map { "coord:st:$_" } @gone);
$admin->command('ZREM', 'coord:st', @gone);

# what stays has other news, so that it lives on

my $news = 100_000;
my %stay = map { $_ => $admin->command('GET', "coord:st:$_") } @stay;

ok($t->wait_for(sub {
    $news += 1000;

    for my $node (@stay) {
        my @words = split / /, $stay{$node};
        $words[4] += $news;
        $words[5] += $news / 1000;
        $admin->command('SET', "coord:st:$node", "@words", 'EX', 60);
    }

    my %there = map { $_->{node} => 1 } others($a);

    return !grep { $there{$_} } @gone;
}, 60), 'some of them are gone');

is(join(' ', sort grep { /-0000000\d$/ }
                       map { $_->{node} } @{ fleet($a)->{lost} }),
   join(' ', sort "$host-00000001", 'gone-00000002', 'other-00000001',
                  'another-00000001'),
   'those are missed whose place nobody has taken');

$admin->command('DEL', map { "coord:st:$_" } @stay);
$admin->command('ZREM', 'coord:st', @stay);


# who was started anew takes its place

$b->start;
ok($t->wait_for(sub {
    (grep { !/-0000000\d$/ } map { $_->{node} } others($a)) == 1 && !lost($a)
}, 60), 'another one of that host is not missed');

# one that upgrades its binary says so

sub told {
    my ($node) = (grep { $_->{self} } @{ fleet($b)->{nodes} })[0]{node};
    my $text = $admin->command('GET', "coord:st:$node") // '';
    return $text =~ /^coord 1(?: \S+){6} (\d+) (\d+)\n/ ? "$1 $2" : '';
}

my $was = $b->pid;
ok($t->wait_for(sub { told() eq "$was 0" }, 20), 'a node tells its process')
    or diag(told());

my ($old, $new) = $b->upgrade;
kill 'QUIT', $old;
$b->wait_gone(20, $old);
ok($t->wait_for(sub { told() eq "$new $old" }, 20),
   'and which one it upgrades') or diag(told());

$b->stop;
$t->wait_for(sub { !others($a) }, 60);


# a reload keeps the name; Redis frozen: the page answers, this node is on it

$a->reload;
is((grep { $_->{self} } @{ fleet($a)->{nodes} })[0]{node}, $own->{node},
   'the same name after a reload');

$redis->freeze;
my $r = $a->get('/status?format=json', timeout => 5);
is($r->status, 200, 'Redis frozen: the page answers');
is(scalar(grep { $_->{self} } @{ decode_json($r->body)->{fleet}{nodes} }), 1,
   'with this node');
kill 'CONT', $redis->{pid};


# the list is written with its life, or not at all

my $fake = $t->fake_redis(upstream => $redis->{port});
(my $through = $http) =~ s/%%REDIS%%/%%FAKE%%/;
$t->node(name => 'f', workers => 1, http => $through)->start;

my $asked = qr/MULTI ZADD ZREMRANGEBYSCORE PEXPIRE ZRANGE ECHO EXEC/;

sub asked {
    my ($conn) = map { $_->[0] } $fake->commands('ZADD', own => 1);

    return join(' ', map { $_->[1] } grep { $_->[0] == ($conn // -1) }
                     $fake->commands('', own => 1));
}

ok($t->wait_for(sub { asked() =~ $asked }, 20),
   'a node asks, in one transaction') or diag(asked());


# without Redis there is no fleet

{
    my $m = $t->node(name => 'memory', http => <<'EOF')->start;
    coord_limit_req_zone $arg_k zone=one:1m rate=1r/h;

    server {
        listen 127.0.0.1:%%PORT%%;
        location / { coord_limit_req zone=one; empty_gif; }
        location = /status { coord_status; }
    }
EOF

    is(scalar @{ fleet($m)->{nodes} }, 0, 'a memory store: no fleet');
    like($m->get('/status?format=html')->body,
         qr{<section id="fleet" hidden>}, 'and none on the page');
}

done_testing();
