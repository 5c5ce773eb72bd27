#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A server that answers, but not as it should: full, busy, loading, demoted,
# without its master, its replicas or a disk, without room for clients, frozen.
# Requests go by on_failure, the log has the server's words, and all is well
# again by itself.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis('maxmemory-policy allkeys-lru', 'lua-time-limit 5',
                      'rdbcompression no', 'key-load-delay 5000',
                      'loading-process-events-interval-bytes 1024');
my $admin = $redis->connect;
my $origin = $t->origin;

my $n = $t->node(name => 'n', http => <<'EOF')->start;
    coord_store main { server %%REDIS%%; timeout 100ms; connect_timeout 2s;
                       breaker failures=5 cooldown=200ms; }
    coord_limit_req_zone $arg_k zone=one:1m rate=1r/h;
    coord_limit_req_zone $arg_k zone=fixed:1m rate=10r/h
                         algorithm=fixed_window;
    server {
        listen 127.0.0.1:%%PORT%%;
        location / { coord_limit_req zone=one; empty_gif; }
        location /closed { coord_limit_req zone=one on_failure=closed;
                           empty_gif; }
        location /charge { coord_limit_req zone=fixed charge=after cost=3;
                           proxy_pass http://%%ORIGIN%%; }
        location /pub { coord_publish kept $arg_m history=9; empty_gif; }
        location /api/ { coord_api; }
        location /status { coord_status; }
    }
EOF

sub decides { return defined $n->get('/?k=' . rand)->header('RateLimit') }

sub counted {
    my ($result) = @_;

    my ($count) = $n->get('/status?format=prometheus')->body
        =~ /^coord_store_operations_total\{[^}]*result="$result"[^}]*\} (\d+)/m;

    return $count || 0;
}

sub trouble {
    my ($name, $words, $class, $begin, $end) = @_;

    my $before = counted($class);
    my $since = time;
    my $seen = () = $n->log =~ /coord redis: [^\n]*$words/g;

    $begin->();
    ok($t->wait_for(sub { !decides() }, 5), "$name: by on_failure");
    my $began = time;
    my $status = $n->get('/closed?k=' . rand)->status;
    is($status, 503, "$name: closed");
    ok($n->wait_log(qr/\[error\][^\n]*coord redis: [^\n]*$words/, 5),
       "$name: the words of the server");

    # a request that asks, and not only a breaker that is open

    $t->wait_for(sub {
        $n->get('/?k=' . rand);
        return time - $began > 1.5 && counted($class) > $before;
    }, 10);

    my $lines = () = $n->log =~ /coord redis: [^\n]*$words/g;
    cmp_ok($lines - $seen, '<=', 3 + (time - $since), "$name: once a second");
    cmp_ok(counted($class), '>', $before, "$name: counted");

    $end->();
    ok($t->wait_for(\&decides, 10), "$name: recovered");
}

ok($t->wait_for(\&decides, 5), 'all is well');


# a policy that forgets

ok($n->wait_log(qr/\[warn\].*coord store "main".*maxmemory-policy allkeys-lru/,
                5), 'maxmemory-policy is told');
sleep 2.2;
is(scalar(() = $n->log =~ /maxmemory-policy/g), 1, 'once');
$admin->command('CONFIG', 'SET', 'maxmemory-policy', 'noeviction');


trouble('full', qr/OOM command not allowed/, 'unavailable',
        sub { $admin->command('CONFIG', 'SET', 'maxmemory', '1') },
        sub { $admin->command('CONFIG', 'SET', 'maxmemory', '0') });

my $lua = $redis->connect;

trouble('busy', qr/BUSY/, 'unavailable',
        sub { $lua->send([ 'EVAL', 'while true do end', '0' ]) },
        sub { $t->wait_for(sub {
                  $admin->command('SCRIPT', 'KILL') eq 'OK' }, 5) });



# a replica, by somebody's command

trouble('demoted', qr/READONLY You can't write against a read only replica/,
        'unavailable',
        sub { $admin->command('REPLICAOF', '127.0.0.1', '1') },
        sub { $admin->command('REPLICAOF', 'NO', 'ONE') });


# one that may be written to, and has lost its master

$admin->command('CONFIG', 'SET', $_, 'no')
    for 'replica-read-only', 'replica-serve-stale-data';

trouble('without a master', qr/MASTERDOWN Link with MASTER is down/,
        'unavailable',
        sub { $admin->command('REPLICAOF', '127.0.0.1', '1') },
        sub { $admin->command('REPLICAOF', 'NO', 'ONE') });


trouble('without replicas', qr/NOREPLICAS Not enough good replicas/,
        'unavailable',
        sub { $admin->command('CONFIG', 'SET', 'min-replicas-to-write', '1') },
        sub { $admin->command('CONFIG', 'SET', 'min-replicas-to-write', '0') });


# what was to be published meanwhile is, when the server takes it

{
    my $before = counted('unavailable');

    $admin->command('CONFIG', 'SET', 'min-replicas-to-write', '1');
    $n->get("/pub?m=$_") for 1 .. 3;
    ok($t->wait_for(sub { counted('unavailable') > $before }, 5),
       'messages: refused');
    $admin->command('CONFIG', 'SET', 'min-replicas-to-write', '0');

    my $kept;

    ok($t->wait_for(sub {
        $kept = $admin->command('XRANGE', 'coord:ev:{kept}', '-', '+');
        return @$kept == 3;
    }, 5), 'messages: all are there');
    is(join(',', map { $_->[1][1] } @$kept), '1,2,3', 'messages: in order');
    like($n->get('/status?format=prometheus')->body,
         qr/^coord_events_lost_total\{store="main"\} 0$/m,
         'messages: and none is lost');
}


# one that takes them again in between: the first is tried alone, and nothing
# that comes meanwhile is before it

{
    my $refuse = 20;
    my $other = $t->fake_redis(on => { PUBLISH => sub {
        return $_[2] eq '1' && $refuse-- > 0
               ? "-LOADING Redis is loading the dataset in memory\r\n"
               : ":1\r\n";
    } });
    my $m = $t->node(name => 'm', http => <<"EOF")->start;
    coord_store main { server redis://@{[$other->addr]}; timeout 2s; }
    server {
        listen 127.0.0.1:%%PORT%%;
        location /pub { coord_publish room \$arg_m; empty_gif; }
    }
EOF

    $m->get('/pub?m=1');
    ok($t->wait_for(sub { $other->commands('PUBLISH') > 1 }, 10),
       'messages: tried again');
    $m->get("/pub?m=$_") for 2 .. 9;
    ok($t->wait_for(sub { $other->commands('PUBLISH') >= 29 }, 10),
       'messages: until all are taken');
    is(join(' ', map { $_->[3] } $other->commands('PUBLISH')),
       '1 ' x 21 . '2 3 4 5 6 7 8 9', 'messages: in order, the first alone');
    $m->stop;
}


# and so is what a request is charged with

{
    my $before = counted('unavailable');

    my $c = $n->connect;
    $c->send("GET /charge?k=c&delay=0.5 HTTP/1.1\r\nHost: x\r\n\r\n");
    ok($t->wait_for(sub { $origin->count('/charge') == 1 }, 5),
       'a charge: let in');
    $admin->command('CONFIG', 'SET', 'min-replicas-to-write', '1');
    is($c->response(timeout => 5)->status, 200, 'a charge: served');
    ok($t->wait_for(sub { counted('unavailable') > $before }, 5),
       'a charge: refused');
    $admin->command('CONFIG', 'SET', 'min-replicas-to-write', '0');

    my $left = '';

    $t->wait_for(sub {
        ($left) = $n->get('/api/limits/fixed/c')->body
            =~ /"remaining":(\d+)/;
        return $left && $left == 7;
    }, 4);

    is($left, 7, 'a charge: made when the server takes it');
}


# a disk that does not take what is to be saved: there is something in its place

my $dump = "$redis->{dir}/dump.rdb";

trouble('without a disk', qr/MISCONF \w+ is configured to save RDB snapshots/,
        'unavailable',
        sub { mkdir $_ or die "mkdir: $!" for $dump, "$dump/x";
              $admin->command('CONFIG', 'SET', 'save', '3600 1');
              $admin->command('BGSAVE') },
        sub { rmdir $_ or die "rmdir: $!" for "$dump/x", $dump;
              $admin->command('BGSAVE');
              $admin->command('CONFIG', 'SET', 'save', '') });


# one that has been started again and reads what it had saved, for 5 ms a key

for my $i (0 .. 19) {
    $admin->pipeline(map { [ 'SET', "other:$i:$_", 'x' x 2048 ] } 1 .. 200);
}

ok($t->wait_for(sub { $admin->command('SAVE') eq 'OK' }, 10), 'saved');

trouble('loading', qr/LOADING \w+ is loading the dataset in memory/,
        'unavailable',
        sub { $redis->stop('KILL');
              $redis->run(qr/^LOADING/);
              $admin = $redis->connect },
        sub { $admin->command('CONFIG', 'SET', 'key-load-delay', '0') });

$admin->command('FLUSHALL');


# three have a connection, and there is room for no more

my @held = ($admin, map { $redis->connect } 1, 2);
my %held = map { $_->command('CLIENT', 'ID') => 1 } @held;

trouble('clients', qr/max number of clients/, 'connect',
        sub { $admin->command('CONFIG', 'SET', 'maxclients', '3');
              $admin->command('CLIENT', 'KILL', 'ID', $_)
                  for grep { !$held{$_} }
                      $admin->command('CLIENT', 'LIST') =~ /^id=(\d+)/mg; },
        sub { $admin->command('CONFIG', 'SET', 'maxclients', '1000') });

trouble('frozen', qr/no reply in time/, 'timeout',
        sub { $redis->freeze },
        sub { kill 'CONT', $redis->{pid} });

done_testing();
