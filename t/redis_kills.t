#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Redis drops the connections of all workers again and again, in the middle of
# whatever they ask, and later takes no write for a while (CLIENT PAUSE): every
# request has its answer, or goes by on_failure, what was granted to nobody is
# given back, nothing runs twice, and all is well when it is over.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

use POSIX ();
use Time::HiRes qw(sleep);

my $t = Coord->new(time_limit => 400);
my $redis = $t->redis;
my $conn = $redis->connect;

my $o = $t->origin(default => sub {
    return { body => 'done', delay => rand(0.02),
             headers => [ 'Cache-Control' => 'max-age=1',
                          'Surrogate-Key' => 'tag' ] };
});

my %features = (
    leaky => 'coord_limit_req zone=leaky burst=99',
    sliding => 'coord_limit_req zone=sliding',
    log => 'coord_limit_req zone=log',
    fixed => 'coord_limit_req zone=fixed cost=2',
    prefetch => 'coord_limit_req zone=pre burst=999 nodelay',
    after => 'coord_limit_req zone=charge burst=99 nodelay charge=after',
    reserve => 'coord_limit_req zone=reserve burst=99 nodelay reserve=5 cost=2',
    conn => 'coord_limit_conn conn 9',
    line => 'coord_limit_conn line 1 wait=9s',
    lock => 'coord_lock zone=lock wait=9s',
    post => 'coord_idempotency on; coord_idempotency_wait 9s',
    session => 'coord_session zone=session bind=$arg_b user=$arg_u '
               . 'max_per_user=3',
    page => 'coord_cache $arg_k zone=pages lock',
    look => 'add_header X-Look $plan',
    pub => 'coord_publish kept $arg_k history=99',
);

my $locations = '';

for my $name (sort keys %features) {
    for my $how (qw(open closed)) {
        $locations .= "        location /$how/$name { $features{$name};\n"
                      . "            coord_on_failure $how;\n"
                      . "            proxy_pass http://%%ORIGIN%%; }\n";
    }
}

my @nodes = map { $t->node(name => $_, workers => 2, http => <<"EOC")->start }
    coord_store main { server %%REDIS%%; timeout 500ms; connect_timeout 2s;
                       breaker failures=5 cooldown=50ms; }

    coord_limit_req_zone \$arg_k zone=leaky:1m rate=1000r/s;
    coord_limit_req_zone \$arg_k zone=sliding:1m rate=1000r/m
                         algorithm=sliding_window;
    coord_limit_req_zone \$arg_k zone=log:1m rate=1000r/m
                         algorithm=sliding_log;
    coord_limit_req_zone \$arg_k zone=fixed:1m rate=1000r/h
                         algorithm=fixed_window;
    coord_limit_req_zone \$arg_k zone=pre:1m rate=1000r/h prefetch=50;
    coord_limit_req_zone \$arg_k zone=charge:1m rate=1000r/h;
    coord_limit_req_zone \$arg_k zone=reserve:1m rate=1000r/h;
    coord_limit_conn_zone \$arg_k zone=conn:1m lease=100s;
    coord_limit_conn_zone \$arg_k zone=line:1m lease=100s;
    coord_lock_zone \$arg_k zone=lock:1m lease=100s;
    coord_session_zone \$arg_s zone=session:1m;
    coord_cache_zone zone=pages:1m;
    coord_lookup \$plan plan:\$arg_k ttl=1s zone=plans default=none;
    coord_idempotency_scope off;
    coord_idempotency_lease 100s;

    server {
        listen 127.0.0.1:%%PORT%%;
$locations
        location /api/ { coord_api write; }
        location /status { coord_status; }
        location /health { coord_health; }
    }
EOC
    qw(a b);


# a round: all features on both nodes; what came

my (%codes, @bad, %posts);
my ($round, $slowest) = (0, 0);

sub requests {
    my ($how, $k) = @_;

    my @requests;

    for my $n (@nodes) {
        for my $name (sort keys %features) {
            my @post = $name ne 'post' ? ()
                : (method => 'POST', body => 'b',
                   headers => { 'Idempotency-Key' => "key-$k" });

            push @requests, [ $name, $n->req("/$how/$name?k=$k&s=$k&b=1&u=u",
                                             @post) ];
        }

        push @requests, map { [ "api $_->[1]", $n->req("/api/$_->[1]",
                                                       method => $_->[0]) ] }
            [ GET => "limits/leaky/$k" ], [ GET => "conns/conn/$k" ],
            [ GET => "sessions/session/$k" ], [ GET => 'users/session/u' ],
            [ DELETE => "limits/log/$k" ], [ DELETE => "locks/lock/none" ],
            [ DELETE => "idempotency/none-$k?scope=" ],
            [ DELETE => "cache/pages?tag=tag" ], [ DELETE => "lookups/plan%3A$k" ],
            [ DELETE => "sessions/session/none-$k" ],
            [ DELETE => "users/session/none-$k" ];

        push @requests, [ 'status', $n->req('/status?format=json') ];
    }

    return @requests;
}


sub round {
    my ($how) = @_;

    my $k = ++$round;
    my @requests = requests($how, $k);
    my $start = $t->ran;
    my @r = $t->parallel([map { $_->[1] } @requests], timeout => 30);
    my $took = $t->ran - $start;

    $slowest = $took if $took > $slowest;
    $posts{"key-$k"} = 1;

    for my $i (0 .. $#r) {
        my ($name, $status) = ($requests[$i][0], $r[$i]->status);

        $codes{$status}++;
        push @bad, "$how $name: $status" if $status != 200
            && !($status == 503 && ($how eq 'closed' || $name =~ /^api/))
            && !($status == 404 && $name =~ /^api sessions/)
            || !$r[$i]{complete};
    }
}


sub fine {
    my ($name) = @_;

    my @wrong;

    ok($t->wait_for(sub {
        my @requests = requests('closed', ++$round);
        my @r = $t->parallel([map { $_->[1] } @requests], timeout => 30);

        @wrong = map { "$requests[$_][0]: " . $r[$_]->status }
                 grep { $r[$_]->status != 200
                        && ($r[$_]->status != 404
                            || $requests[$_][0] !~ /^api sessions/) } 0 .. $#r;
        return !@wrong;
    }, 10), "$name: all is well") or diag(join "\n", @wrong);
}


sub received {
    my ($n) = $conn->command('INFO', 'stats')
              =~ /^total_connections_received:(\d+)/m;

    return $n;
}


# places, those who wait for them, and who fills or loads something

sub left {
    return grep { /^coord:(?:cc|lk):/ && !/:t$/ } @{$conn->command('KEYS', '*')};
}


fine('at first');

for my $how (qw(open closed)) {
    my $before = received();
    my $killer = fork();
    die "fork: $!" if !defined $killer;

    if ($killer == 0) {
        my $admin = $redis->connect;

        for my $n (1 .. 10_000) {
            $admin->command(qw(CLIENT KILL TYPE), $n % 5 ? 'normal' : 'pubsub');
            sleep($n % 4 ? 1.5 + rand(0.5) : rand(0.1));
        }

        POSIX::_exit(0);
    }

    my $end = $t->ran + 12;
    round($how) while $t->ran < $end;
    kill 'KILL', $killer;
    waitpid($killer, 0);

    # the killer has dropped this one as well, and his last word may come late
    $t->wait_for(sub { eval { ($conn = $redis->connect)->command('PING') } });

    cmp_ok(received() - $before, '>=', 20, "$how: connections were lost");
    fine($how);
    ok($t->wait_for(sub { !left() }, 20), "$how: nothing is left behind")
        or diag(join ' ', left());
}

is_deeply(\@bad, [], 'each request has an answer, or goes by on_failure');
note(join ', ', map { "$_: $codes{$_}" } sort keys %codes);
note("the slowest round: $slowest s");
cmp_ok($slowest, '<', 9, 'and none hangs');


# what a client was told 200 of is kept, and what runs twice went by "open"

my @again;

for my $k (sort keys %posts) {
    my $r = $nodes[0]->post('/closed/post?k=' . ($k =~ s/key-//r)
                            . '&s=' . ($k =~ s/key-//r) . '&b=1&u=u', 'b',
                            headers => { 'Idempotency-Key' => $k });
    push @again, "$k: " . $r->status if $r->status !~ /^(?:200|422)$/;
}

is_deeply(\@again, [], 'no key is taken');

my %runs;

$runs{$_->{headers}{'idempotency-key'}[0]}++
    for grep { $_->{path} eq '/closed/post' } $o->requests;

is_deeply([grep { $runs{$_} > 1 } sort keys %runs], [], 'nothing has run twice');


# writes wait in Redis, and so does all that stands behind them

$slowest = 0;
@bad = ();
$conn->command(qw(CLIENT PAUSE 100000 WRITE));
round($_) for qw(open closed open);
$conn->command(qw(CLIENT UNPAUSE));

is_deeply(\@bad, [], 'paused: by on_failure');
cmp_ok($slowest, '<', 4, 'paused: after the timeout');
note("the slowest round: $slowest s");
fine('paused');
ok($t->wait_for(sub { !left() }, 20), 'paused: nothing is left behind')
    or diag(join ' ', left());

done_testing();
