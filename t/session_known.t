#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A session that a worker has just read: its life is not asked for again, and
# all that is to be seen at once is.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis;
my $admin = $redis->connect(die => 1);

my $conf = <<'EOF';
    coord_store main { server %%REDIS%%; timeout 3s; connect_timeout 10s; }

    coord_session_zone $arg_k zone=one:1m;
    coord_session_zone $arg_k zone=user:1m;
    coord_session_zone $arg_k zone=brief:1m ttl=3s;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Status $coord_session_status always;
        add_header X-Value "[$coord_session_value]" always;

        location /bind { coord_session zone=one bind=$arg_v; empty_gif; }
        location /use { coord_session zone=one; empty_gif; }
        location /rebind {
            coord_session zone=one bind=$arg_v mismatch=rebind;
            empty_gif;
        }
        location /user { coord_session zone=user user=$arg_u; empty_gif; }
        location /brief { coord_session zone=brief; empty_gif; }
        location /api/ { coord_api write; }
    }
EOF

my $a = $t->node(name => 'a', http => $conf)->start;
my $b = $t->node(name => 'b', http => $conf)->start;

sub seen {
    my ($node, $uri) = @_;

    my $res = $node->get($uri);

    return join ' ', $res->status, $res->header('X-Status'),
                     $res->header('X-Value');
}

# how often Redis was asked for these

sub calls {
    my $stats = $admin->command('INFO', 'commandstats');

    return map { $stats =~ /^cmdstat_$_:calls=(\d+)/m ? $1 : 0 } @_;
}

# asks until nothing else was asked for but the record: within a second

sub known {
    my ($node, $uri) = @_;

    for (1 .. 50) {
        my @before = calls(qw(hmget pttl multi));
        my $seen = seen($node, $uri);
        my @after = calls(qw(hmget pttl multi));

        return $seen if $after[0] == $before[0] + 1
                        && "@after[1, 2]" eq "@before[1, 2]";
    }

    return 'never';
}


# the steady state

is(seen($a, '/bind?k=1&v=x'), '200 NEW [x]', 'a new session');
is(known($a, '/bind?k=1&v=x'), '200 BOUND [x]', 'one that is known');
is(known($a, '/use?k=1'), '200 BOUND [x]', 'and what it is bound to');
is(seen($a, '/bind?k=1&v=y'), '403 MISMATCH []', 'a mismatch is one');

# another node binds it to something else, and this one sees that, and remembers

is(seen($b, '/rebind?k=1&v=y'), '200 MISMATCH [y]', 'bound to something else');
is(seen($a, '/use?k=1'), '200 BOUND [y]', 'the next request has that');

# it ends on another node, with the next request

is(known($a, '/use?k=1'), '200 BOUND [y]', 'known again');
is($b->request('DELETE', '/api/sessions/one/1')->status, 200, 'it is ended');
is(seen($a, '/use?k=1'), '403 REVOKED []', 'the next request has ended');
is(seen($a, '/bind?k=1&v=y'), '403 REVOKED []', 'and those after it');

# the same with a user, whose index is asked

is(seen($a, '/user?k=1&u=ann'), '200 NEW []', 'a user');
is(known($a, '/user?k=1&u=ann'), '200 BOUND []', 'and that is known');
is(seen($a, '/user?k=1&u=bob'), '403 MISMATCH []', 'another one');
is(known($a, '/user?k=1&u=ann'), '200 BOUND []', 'the first one again');

is($b->request('DELETE', '/api/users/user/ann')->status, 200, 'all his end');
is(seen($a, '/user?k=1&u=ann'), '403 REVOKED []', 'with the next request');
is(seen($a, '/user?k=1&u=ann'), '403 REVOKED []', 'and those after it');

# who takes the index away himself, too

is(seen($a, '/user?k=3&u=eve'), '200 NEW []', 'one more');
is(known($a, '/user?k=3&u=eve'), '200 BOUND []', 'known');
$admin->command('DEL', @{ $admin->command('KEYS', '*:us:user:*') });
my $before = (calls('hmget'))[0];
is(seen($a, '/user?k=3&u=eve'), '403 REVOKED []', 'ended by its index alone');
is((calls('hmget'))[0], $before + 2, 'which is made sure of');

# one that is used now and then for longer than its life

is(seen($a, '/brief?k=1'), '200 NEW []', 'a short life');

my ($key) = @{ $admin->command('KEYS', '*:ss:brief:*') };
my $until = time + 5;
my ($not, $least) = (0, 3000);

while (time < $until) {
    my $began = time;
    $not++ if seen($a, '/brief?k=1') ne '200 BOUND []';

    # what it was when that was decided, or more
    my $left = $admin->command('PTTL', $key) + 1000 * (time - $began);
    $least = $left if $left < $least;

    sleep 0.1;
}

is($not, 0, 'it lives');
cmp_ok($least, '>', 2000, 'its life is slid, whatever is known of it');

# what this node remembers is what it has seen last

is(seen($a, '/bind?k=2&v=x'), '200 NEW [x]', 'another session');
is(known($a, '/use?k=2'), '200 BOUND [x]', 'known');
is(seen($b, '/rebind?k=2&v=z'), '200 MISMATCH [z]', 'bound to something else');
is(seen($a, '/use?k=2'), '200 BOUND [z]', 'seen');

$redis->freeze;

is(seen($a, '/use?k=2'), '200 BOUND [z]', 'and remembered');

kill 'CONT', $redis->{pid};

done_testing();
