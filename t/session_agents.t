#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# examples/agents.conf as it stands, but for its ports, on two nodes.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Util qw(slurp);

my $t = Coord->new;
my $redis = $t->redis;
my @o = map { my $n = $_; $t->origin(default => sub {
    my $h = $_[0]{headers};
    return { body => "agent-$n", headers => [ 'X-Agent' => "agent-$n",
             map { ("X-Got-$_" => $h->{lc "x-$_"}[0] // '') }
             'Conversation-Id', 'Agent' ] };
}) } 1 .. 3;

my $conf = slurp("$FindBin::Bin/../examples/agents.conf");

$conf =~ s/^load_module.*\n//m;
$conf =~ s/^events \{\}\n//m;
$conf =~ s/127\.0\.0\.1:6379/127.0.0.1:%%REDIS_PORT%%/;
$conf =~ s/127\.0\.0\.1:8080/127.0.0.1:%%PORT%%/;
$conf =~ s/127\.0\.0\.1:900$_/$o[$_ - 1]->addr/ge for 1 .. 3;
$conf =~ s/redis:\/\/\S+;/$& timeout 5s;/;

my ($a, $b) = map { $t->node(name => $_, workers => 2, conf => $conf)->start }
              'a', 'b';
$_->allow(qr/\[warn\].*temporarily disabled/) for $a, $b;


# a conversation by its id

my $first = chat($a, 'c1')->body;
like($first, qr/^agent-[123]$/, 'an agent answers');
settled('c1', $first);
is(join(' ', map { chat($_, 'c1')->body } $b, $a, $b, $b, $a),
   join(' ', ($first) x 5), 'the conversation stays with it');
is(chat($b, 'c1')->header('X-Got-Agent'), $first, 'who knows that');
is(chat($b, 'c1')->header('X-Got-Conversation-Id'), 'c1', 'and the id');

my %agents = map { chat($a, "x$_")->body => 1 } 1 .. 9;
cmp_ok(scalar keys %agents, '>=', 2, 'new conversations are balanced');


# by cookie

my $r = $a->get('/chat/');
my ($id) = ($r->header('Set-Cookie') // '') =~ /^conversation=(\w+)/;
is($r->header('X-Got-Conversation-Id'), $id, 'a cookie from the start');
settled(undef, $r->body, $id);
is(join(' ', map { $_->get('/chat/', headers =>
                           { Cookie => "conversation=$id" })->body }
             $b, $a, $b), join(' ', ($r->body) x 3), 'and it stays');


# the agent dies: another one takes over, on all nodes

my ($n) = $first =~ /(\d)/;
$o[$n - 1]->stop;
my $second = chat($a, 'c1')->body;
isnt($second, $first, 'another agent takes over');
$o[$n - 1]->restart;
settled('c1', $second);
is(join(' ', map { chat($_, 'c1')->body } $b, $a, $b), join(' ', ($second) x 3),
   'and keeps the conversation');


# three a user

# further apart than the clocks of the nodes

for (1 .. 4) {
    chat($_ % 2 ? $a : $b, "u$_", 'ann');
    select undef, undef, undef, 0.1;
}

is(join(' ', map { chat($a, "u$_", 'ann')->status } 1 .. 4),
   '403 200 200 200', 'a user has three conversations');


# the address will do

$first = $a->get('/peer/', headers => { 'X-Conversation-Id' => 'p' })->body;
ok($t->wait_for(sub { $redis->connect->command('KEYS', '*:peer:*')->[0] }, 10),
   'peer: learned');
is(join(' ', map { $_->get('/peer/', headers =>
                           { 'X-Conversation-Id' => 'p' })->body }
             $b, $a, $b, $b), join(' ', ($first) x 4), 'peer: stays');

done_testing();


sub chat {
    my ($node, $id, $user) = @_;

    return $node->get('/chat/', headers => {
        'X-Conversation-Id' => $id,
        defined $user ? ('X-User' => $user) : () });
}


# the other node has heard of it

sub settled {
    my ($id, $agent, $cookie) = @_;

    ok($t->wait_for(sub {
        ($b->get('/chat/', headers => {
            defined $id ? ('X-Conversation-Id' => $id) : (),
            defined $cookie ? (Cookie => "conversation=$cookie") : () })
         ->header('X-Got-Agent') // '') eq $agent }, 10), 'learned');
}
