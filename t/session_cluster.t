#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Sessions in a Redis Cluster: a session and the index of its user are on
# different servers, and are never seen one without the other.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Cluster;
use Digest::SHA qw(sha256_hex);

my $t = Coord->new;
my $cluster = Coord::Cluster->start($t, masters => 3);
my @servers = @{$cluster->{servers}};
my $origin = $t->origin(default => sub {
    return { body => 'x', headers => [ map { ("X-\u$_" => $_[0]{args}{$_}) }
             grep { defined $_[0]{args}{$_} } qw(id user login) ] };
});

$t->set(SEED => $servers[0]{port});

my $conf = <<'EOF';
    coord_store main { mode cluster; server redis://127.0.0.1:%%SEED%%;
                       timeout 5s; connect_timeout 2s;
                       breaker failures=1000 cooldown=10m; }
    coord_session_zone $http_x_id zone=one:1m ttl=1h;
    coord_session_zone $http_x_id zone=seat:1m ttl=1h;
    coord_session_zone $coord_session_id zone=app:1m ttl=1h;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Status $coord_session_status always;
        proxy_pass_header X-Id;

        location / {
            coord_session zone=one create=$upstream_http_x_id bind=$arg_v
                          user=$upstream_http_x_user max_per_user=2;
            proxy_pass http://%%ORIGIN%%;
        }
        location /still { coord_session zone=one; empty_gif; }
        location /seat {
            coord_session zone=seat user=$arg_u max_per_user=2 over=reject;
            empty_gif;
        }
        location /login {
            coord_session_cookie sid rotate=$upstream_http_x_login;
            coord_session zone=app user=$upstream_http_x_user;
            proxy_pass http://%%ORIGIN%%;
        }
        location /api { coord_api write; }
    }
EOF

my ($a, $b) = map { $t->node(name => $_, workers => 2, http => $conf)->start }
              'a', 'b';


# ids and users all over the slots.  Who was active last is told by what the
# workers know of the clocks, which are as near to each other as a round trip is
# short: which of two that come one after the other is the first, the index says

my ($wrong, @last) = (0);

for my $u (1 .. 10) {
    my @id = map { "u$u-$_" } 1 .. 3;
    my $made = join ' ', map { told($a, "/?id=$_&user=u$u&v=1") } @id[0, 1];
    my @first = grep { digest($_) eq first_of("u$u") } @id[0, 1];

    $made .= ' ' . told($a, "/?id=$id[2]&user=u$u&v=1");
    is($made, '200 NEW 200 NEW 200 NEW', "user $u: created") if $u == 1;

    my $got = join ' ', map { told($b, '/?v=1', $_) } @id;
    my $expected = join ' ', map { $_ eq ($first[0] // '') ? '403 REVOKED'
                                                           : '200 BOUND' } @id;
    $wrong++ if $got ne $expected || @first != 1;

    @last = grep { $_ ne ($first[0] // '') } @id if $u == 3;
}

is($wrong, 0, 'of 10 users with three sessions each the first has ended');
is($b->request('DELETE', '/api/users/one/u3')->status, 200, 'DELETE user');
is(join(' ', map { told($a, '/?v=1', $_) } @last),
   '403 REVOKED 403 REVOKED', 'all are ended');


# seats, of many at once

my @r = $t->parallel([ map { (($a, $b)[$_ % 2])->req('/seat?u=ann',
    headers => { 'X-Id' => "s$_" }) } 1 .. 20 ]);
is(scalar(grep { $_->status == 200 } @r), 2, 'two seats');


# a log-in moves the session

my ($id) = $a->get('/login')->header('Set-Cookie') =~ /sid=(\w+)/;
my $r = $b->get('/login?login=1&user=bob', headers => { Cookie => "sid=$id" });
my ($new) = $r->header('Set-Cookie') =~ /sid=(\w+)/;
is($a->get('/login', headers => { Cookie => "sid=$new" })->header('X-Status'),
   'BOUND', 'moved');
is($a->get('/login', headers => { Cookie => "sid=$id" })->header('X-Status'),
   'REVOKED', 'the old id');

# a session that is known, while its slot goes elsewhere: a transaction gets
# nothing there, and the node remembers.  Each worker waits for that once in the
# time of "cooldown"

sub still { return join ' ', map { told($a, '/still', 'still') } 1 .. 20 }

my $bound = join ' ', ('200 BOUND') x 20;

is(told($a, '/still', 'still'), '200 NEW', 'a session');
is(still(), $bound, 'that is known');

my $slot = Coord::Cluster::slot_of('~' . digest('still'));
my ($to) = grep { $_->{port} != $cluster->master($slot)->{port} } @servers;

# nothing is sent to and fro: what only reads is asked for as a whole there, too

sub sent_back {
    my $stats = $to->connect(die => 1)->command('INFO', 'errorstats');

    return $stats =~ /^errorstat_MOVED:count=(\d+)/m ? $1 : 0;
}

my $sent_back = sent_back();

$cluster->begin_move($slot, $to);
is(still(), $bound, 'its slot is about to move');
$cluster->move_keys($slot, $to);
is(still(), $bound, 'it has gone ahead');
is(sent_back(), $sent_back, 'and is asked for there');
$cluster->end_move($slot, $to);
is(still(), $bound, 'its slot has followed');

my ($keys, $bare) = (0, '');

for my $s (@servers) {
    my $c = $s->connect;
    my @keys = @{ $c->command('KEYS', '*') };
    $keys++ if @keys;
    $bare .= " $_" for grep { $c->command('PTTL', $_) == -1 } @keys;
}

is($keys, 3, 'keys on all servers');
is($bare, '', 'all keys have a TTL');

done_testing();


sub told {
    my ($node, $path, $id) = @_;

    my $r = $node->get($path, headers => { defined $id ? ('X-Id' => $id)
                                                       : () });

    return join ' ', $r->status, $r->header('X-Status') // '';
}


sub digest { return substr sha256_hex($_[0]), 0, 32 }


# the least recently active session in the index of a user

sub first_of {
    my $tag = '~' . digest($_[0]);
    my $server = $cluster->master(Coord::Cluster::slot_of($tag));

    return $server->connect(die => 1)
                  ->command('ZRANGE', "coord:us:one:{$tag}", 0, 0)->[0] // '';
}
