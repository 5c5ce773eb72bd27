#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A Redis that answers and refuses: no writes (NOREPLICAS, MISCONF, READONLY,
# OOM), or nothing of its data (LOADING, MASTERDOWN, BUSY).  Requests go by
# on_failure at once, health and metrics tell it, by all nodes and workers, what
# only reads is read, nothing is left behind, and it is over with the first
# write that is taken.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

use JSON::PP;
use Time::HiRes qw(time);

my $t = Coord->new(time_limit => 600);
my $redis = $t->redis('lua-time-limit 5', 'rdbcompression no',
                      'key-load-delay 20000',
                      'loading-process-events-interval-bytes 1024');
my $conn = $redis->connect;

my $o = $t->origin(default => sub {
    my ($req) = @_;
    my %arg = map { /^(\w+)=(.*)/ ? ($1 => $2) : () }
                  split /[?&]/, $req->{uri};

    return { delay => $arg{delay} || 0, body => 'done',
             hold => $arg{hold},
             headers => [ 'Cache-Control' => $arg{cc} || 'no-store',
                          'Surrogate-Key' => 'tag',
                          'X-Session' => $arg{new} || '' ] };
});

my %features = (
    leaky => 'coord_limit_req zone=leaky burst=99',
    bucket => 'coord_limit_req zone=bucket burst=99',
    sliding => 'coord_limit_req zone=sliding',
    log => 'coord_limit_req zone=log',
    fixed => 'coord_limit_req zone=fixed',
    before => 'coord_limit_req zone=pre burst=999 nodelay',
    after => 'coord_limit_req zone=charge burst=99 nodelay charge=after cost=2',
    reserve => 'coord_limit_req zone=reserve burst=99 nodelay reserve=5 cost=2',
    conn => 'coord_limit_conn conn 9',
    line => 'coord_limit_conn line 1 wait=9s',
    lock => 'coord_lock zone=lock',
    post => 'coord_idempotency on',
    session => 'coord_session zone=session bind=$arg_b user=$arg_u',
);

my $locations = '';

for my $name (sort keys %features) {
    my $what = "$features{$name};";

    for my $how (qw(open closed)) {
        $locations .= "        location /$how/$name { $what\n"
                      . "            coord_on_failure $how;\n"
                      . "            proxy_pass http://%%ORIGIN%%; }\n";
    }
}

my %opt = (workers => 2, http => <<"EOC");
    coord_store main { server %%REDIS%%; timeout 1s; connect_timeout 2s;
                       breaker failures=5 cooldown=200ms; }
    coord_store look { server %%REDIS%%; timeout 1s; connect_timeout 2s;
                       breaker failures=5 cooldown=200ms; }

    coord_store idle { server %%REDIS%%; }

    coord_limit_req_zone \$arg_k zone=idle:1m rate=1r/s store=idle;
    coord_limit_req_zone \$arg_k zone=leaky:1m rate=1000r/s;
    coord_limit_req_zone \$arg_k zone=bucket:1m rate=1000r/s
                         algorithm=token_bucket;
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
    coord_session_zone \$arg_k zone=session:1m;
    coord_session_zone \$upstream_http_x_session\$arg_s zone=made:1m;
    coord_cache_zone zone=pages:1m;
    coord_lookup \$plan plan:\$arg_l ttl=1h store=look zone=plans
                 default=none;
    coord_lookup \$name name:\$arg_n load=/load store=look zone=plans
                 default=none;
    coord_idempotency_scope off;
    coord_idempotency_lease 100s;

    server {
        listen 127.0.0.1:%%PORT%%;

        add_header X-Pid \$pid always;
        add_header X-Status "\$coord_limit_req_status\$coord_limit_conn_status\$coord_lock_status\$coord_idempotency_status\$coord_session_status" always;
$locations
        location /page { coord_cache \$arg_k zone=pages;
                         add_header X-Status \$coord_cache_status always;
                         proxy_pass http://%%ORIGIN%%; }
        location /look { add_header X-Status \$plan always;
                         empty_gif; }
        location /name { add_header X-Status \$name always;
                         empty_gif; }
        location /load { proxy_pass http://%%ORIGIN%%; }
        location /fill { coord_cache \$arg_k zone=pages lock;
                         proxy_pass http://%%ORIGIN%%; }
        location /made { coord_session zone=made
                                       create=\$upstream_http_x_session
                                       learn=\$upstream_addr;
                         proxy_pass http://%%ORIGIN%%; }
        location /pub { coord_publish kept \$arg_m history=99;
                        empty_gif; }
        location /events { coord_subscribe kept history; }
        location /status { coord_status keys; }
        location /health { coord_health; }
        location /api/ { coord_api write; }
    }
EOC

my @nodes = map { $t->node(name => $_, %opt)->start } qw(a b);
my $key = 0;


sub json { return decode_json($_[0]->get('/status?format=json')->body) }


# what is shown of the store: its state, the word, whether metrics say that it
# is up

sub shown {
    my ($n, $name) = @_;

    my $r = $n->get('/health');
    my ($store) = grep { $_->{name} eq ($name || 'main') }
                  @{decode_json($r->body)->{stores}};
    my ($up) = $n->get('/status?format=prometheus')->body
        =~ /^coord_store_up\{store="$store->{name}"\} (\d)/m;

    return join ' ', $r->status, $store->{state}, $store->{refuses} || '-',
                     $up;
}


# ask($node, 'open'): all features once, at once; { name => "status word" }

sub ask {
    my ($n, $how) = @_;

    $key++;

    my @names = sort keys %features;
    my @r = $t->parallel([map {
        $n->req("/$how/$_?k=$key&b=1&u=$key", $_ eq 'post'
                ? (method => 'POST', body => 'b',
                   headers => { 'Idempotency-Key' => "key-$key" }) : ())
    } @names], timeout => 20);

    return { map { $names[$_] => $r[$_]->status . ' '
                   . ($r[$_]->header('X-Status') || '-') } 0 .. $#names };
}


my %taken = map { $_ => '200 ' . (/conn|line|lock/ ? 'PASSED'
                                  : /post|session/ ? 'NEW' : 'PASSED') }
                keys %features;
$taken{lock} = '200 ACQUIRED';


# both nodes, all workers, no doubt

sub works {
    my ($n) = @_;

    my $got;

    ok($t->wait_for(sub {
        $got = ask($n, 'closed');
        return !grep { $got->{$_} ne $taken{$_} } keys %taken;
    }, 30), "$n->{name}: all is decided");
    is_deeply($got, \%taken, 'as it should be');
}



sub breakers {
    my $sum = 0;

    $sum += $_ for map { $_->get('/status?format=prometheus')->body
                         =~ /^coord_breaker_opens_total\{[^}]*\} (\d+)/mg }
                   @nodes;

    return $sum;
}


# what holds something when it begins, and is done before it is over

sub hold {
    my ($word) = @_;

    my @held;
    my $before = $o->count;

    for my $n (@nodes) {
        my $k = "$word-$n->{name}";

        for my $name (qw(conn lock line post)) {
            my $post = ($name eq 'post');
            my $c = $n->connect;

            $c->send(($post ? 'POST' : 'GET')
                     . " /closed/$name?k=$k&hold=1 HTTP/1.1\r\nHost: x\r\n"
                     . ($post ? "Idempotency-Key: $k\r\nContent-Length: 1\r\n"
                              : '')
                     . "Connection: close\r\n\r\n" . ($post ? 'b' : ''));
            push @held, $c;
        }
    }

    ok($t->wait_for(sub { $o->count == $before + @held }, 20),
       "$word: some hold a place, a lock, a key");

    # and one that waits in line for it

    for my $n (@nodes) {
        my $c = $n->connect;

        $c->send("GET /open/line?k=$word-$n->{name} HTTP/1.1\r\nHost: x\r\n"
                 . "Connection: close\r\n\r\n");
        push @held, $c;
    }

    ok($t->wait_for(sub {
        return 2 == grep { $conn->command('ZCARD',
                               "coord:cc:line:{$word-$_->{name}}:w") == 1 }
                         @nodes;
    }, 20), "$word: and some wait in line");

    return @held;
}


# the keys of what has been held, but for the numbers of locks

sub left {
    my ($word) = @_;

    return grep { !/:t$/ } @{$conn->command("KEYS", "coord:*$word-*")};
}


# trouble('OOM', needs => 'writes', begin => sub {..}, end => sub {..})

sub trouble {
    my ($word, %is) = @_;

    my $writes = $is{needs} eq 'writes';
    my $begin = time;

    $conn->command('SET', "plan:$word", 'gold');
    is($nodes[0]->get("/page?k=$word&cc=max-age=60")->status, 200,
       "$word: a page");

    my @held = hold($word);
    my $opens = breakers();

    $is{begin}->();

    # by on_failure, and nobody waits

    for my $n (@nodes) {
        my $name = "$word: $n->{name}";
        my $start = $t->ran;

        is_deeply(ask($n, 'open'), { map { $_ => '200 BYPASSED' }
                                         keys %features }, "$name: open");
        is_deeply(ask($n, 'closed'), { map { $_ => '503 UNAVAILABLE' }
                                           keys %features }, "$name: closed");
        cmp_ok($t->ran - $start, '<', 4, "$name: nobody waits");

        is(shown($n), "503 down $word 0", "$name: is shown");
        ok((grep { $_ eq "store main is down: it refuses, $word" }
                 @{json($n)->{trouble}}), "$name: in words");

        # a store of look-ups alone has one more of its own

        if (!$writes) {
            $n->get("/look?l=new-$word-$_") for 1 .. 4;
            is(shown($n, 'look'), "503 down $word 0", "$name: look-ups, too");
            next;
        }

        is($n->get("/look?l=$word")->header('X-Status'), 'gold',
           "$name: what stands there is read");

        is($n->get("/name?n=$word-$n->{name}")->header('X-Status'), 'none',
           "$name: nobody may load what is not there");
        is($n->get("/fill?k=$word-$n->{name}&cc=max-age=60")->body, 'done',
           "$name: a page is passed on");

        # who is full executes no transaction

        is($n->get("/page?k=$word&cc=max-age=60")->header('X-Status'), 'HIT',
           "$name: so is a page") if $word ne 'OOM';
        is(shown($n), "503 down $word 0", "$name: which changes nothing");
    }

    # the API tells it; who is full makes room

    my @frees = ('limits/leaky/2', 'limits/sliding/2', 'limits/log/2',
                 'limits/fixed/2', 'locks/lock/2', 'idempotency/key-2?scope=');

    is($nodes[1]->get("/api/$_")->status, 503, "$word: GET $_")
        for 'limits/leaky/2', 'limits/fixed/2';

    for my $path (@frees, 'cache/pages?key=x', 'cache/pages?tag=x',
                  'sessions/session/2', 'users/session/2')
    {
        my $r = $nodes[0]->request('DELETE', "/api/$path");

        if ($word eq 'OOM' && grep { $_ eq $path } @frees) {
            is($r->status, 200, "$word: DELETE $path") or diag($r->body);
            next;
        }

        is($r->status, 503, "$word: DELETE $path");
        like($r->body, qr/reason: [a-z]+ \(it refuses, $word\)\."/,
             "$word: and why");
    }

    # what is held ends meanwhile

    $o->release("/closed/$_") for qw(conn lock line post);
    my @r = map { $_->response(timeout => 20) } @held;
    is_deeply([map { $_->status } @r], [(200) x @held], "$word: all are served");

    is(breakers(), $opens, "$word: no breaker opens") if $writes;

    my $long = time - $begin;

    $is{end}->();

    # at once, but for a breaker, or a connection that was closed

    for my $n (@nodes) {
        my $got = ask($n, 'closed');

        $t->wait_for(sub {
            $got = ask($n, 'closed');
            return !grep { $got->{$_} ne $taken{$_} } keys %taken;
        }, 10) if !$writes || $word eq 'READONLY';

        is_deeply($got, \%taken, "$word: $n->{name}: it is over");
        ok($t->wait_for(sub { shown($n) =~ /up - 1$/ }, $writes ? 2 : 5),
           "$word: $n->{name}: which is shown") or diag(shown($n));
    }

    is($_->get("/name?n=$word-$_->{name}")->header('X-Status'), 'done',
       "$word: $_->{name}: which is loaded now") for @nodes;

    # who was told of changes is so again

    $conn->command('SET', "plan:$word", 'silver');
    ok($t->wait_for(sub { $_->get("/look?l=$word")->header('X-Status')
                          eq 'silver' }, 10), "$word: look-ups follow")
        for (@nodes) x 2;

    ok($t->wait_for(sub { !left($word) }, 20), "$word: nothing is left behind")
        or diag(join ' ', left($word));

    for my $n (@nodes) {
        my ($k, $r) = ("$word-$n->{name}");

        $t->wait_for(sub {
            $r = $n->post("/closed/post?k=$k&hold=1", 'b',
                          headers => { 'Idempotency-Key' => $k });
            return $r->status == 200;
        }, 20);
        is($r->header('X-Status'), 'REPLAYED', "$word: the result is kept");
    }

    for my $n (@nodes) {
        my @lines = $n->log_lines(qr/coord redis: [^\n]*error reply: $word/);

        cmp_ok(scalar @lines, '>', 0, "$word: $n->{name}: the server's words");
        cmp_ok(scalar @lines, '<=', 2 * 2 * ($long + 2),
               "$word: once a second, store and worker");
    }
}


works($_) for @nodes;

sub config { $conn->command('CONFIG', 'SET', @_) }

trouble('NOREPLICAS', needs => 'writes',
        begin => sub { config('min-replicas-to-write', 1) },
        end => sub { config('min-replicas-to-write', 0) });

trouble('OOM', needs => 'writes',
        begin => sub { config('maxmemory', 1) },
        end => sub { config('maxmemory', 0) });


# a disk that does not take what is to be saved: there is something in its place

my $dump = "$redis->{dir}/dump.rdb";

trouble('MISCONF', needs => 'writes',
        begin => sub {
            mkdir $_ or die "mkdir: $!" for $dump, "$dump/x";
            config('save', '3600 1');
            $conn->command('BGSAVE');
            $t->wait_for(sub { $conn->command('INFO')
                               =~ /rdb_last_bgsave_status:err/ }, 20) },
        end => sub {
            config('save', '');
            rmdir $_ or die "rmdir: $!" for "$dump/x", $dump });

trouble('READONLY', needs => 'writes',
        begin => sub { $conn->command('REPLICAOF', '127.0.0.1', '1') },
        end => sub { $conn->command('REPLICAOF', 'NO', 'ONE') });

my $lua = $redis->connect;

trouble('BUSY', needs => 'all',
        begin => sub {
            $lua->send([ 'EVAL', 'while true do end', '0' ]);
            $t->wait_for(sub { ${$conn->command('ECHO', 'x')} =~ /^BUSY/ }, 5)
        },
        end => sub {
            $t->wait_for(sub { $conn->command('SCRIPT', 'KILL') eq 'OK' }, 5)
        });



# one that reads what it had saved, for 20 ms a key

for my $i (0 .. 9) {
    $conn->pipeline(map { [ 'SET', "other:$i:$_", 'x' x 2048 ] } 1 .. 200);
}

ok($t->wait_for(sub { $conn->command('SAVE') eq 'OK' }, 20), 'saved');
$redis->stop('KILL');
$redis->run(qr/^LOADING/);
$conn = $redis->connect;

for my $n (@nodes) {
    ok($t->wait_for(sub { shown($n) eq '503 down LOADING 0' }, 10),
       "LOADING: $n->{name}: is shown") or diag(shown($n));

    my $got = ask($n, 'open');
    is_deeply($got, { map { $_ => '200 BYPASSED' } keys %features },
              "LOADING: $n->{name}: open");

    $n->get("/look?l=loading-$_") for 1 .. 4;
    is(shown($n, 'look'), '503 down LOADING 0',
       "LOADING: $n->{name}: look-ups, too");
    is(scalar $n->log_lines(qr/error reply: LOADING[^\n]* store: "look"/) > 0, 1,
       "LOADING: $n->{name}: and in words of the server");
    ok($t->wait_for(sub { shown($n, 'idle') eq '503 down - 0' }, 10),
       "LOADING: $n->{name}: one that nobody asks") or diag(shown($n, 'idle'));
}

like($conn->command('INFO'), qr/^loading:1/m, 'LOADING: all the time');
config('key-load-delay', 0);
works($_) for @nodes;
ok($t->wait_for(sub { shown($nodes[0]) =~ /up - 1$/ }, 5), 'LOADING: is over')
    or diag(shown($nodes[0]));


# a user that may not use one command, whichever: those that need it go by
# on_failure, whatever they hold is given back, and it is over when it may

$conn->command('ACL', 'SETUSER', 'admin', 'on', 'nopass', 'allkeys',
               'allchannels', 'allcommands');
$conn->command('AUTH', 'admin', 'x');

# "exec" itself, and the clock of a store that nobody asks, tell it their way

my $why = qr/(?:EXECABORT Transaction discarded because of: )?NOPERM/;

$_->allow(qr/\[emerg\] .* coord redis: (?:error reply|TIME failed): $why/)
    for @nodes;

my %commands;

for my $file (glob "$FindBin::Bin/../lua-free-scripts/*.redis") {
    open my $fh, '<', $file or die "$file: $!";
    /^([A-Z]+)/ and $commands{lc $1} = 1 while <$fh>;
}

my (@odd, @slow, @later, @kept);

for my $command (sort keys %commands) {
    my @held = hold("no-$command");
    $conn->command('ACL', 'SETUSER', 'default', "-$command");

    for my $n (@nodes) {
        my $start = $t->ran;
        my $got = ask($n, 'open');

        push @odd, map { "$command: $_ $got->{$_}" }
                   grep { $got->{$_} ne $taken{$_}
                          && $got->{$_} ne '200 BYPASSED' } keys %$got;

        $got = ask($n, 'closed');

        push @odd, map { "$command: closed: $_ $got->{$_}" }
                   grep { $got->{$_} ne $taken{$_}
                          && $got->{$_} ne '503 UNAVAILABLE' } keys %$got;
        push @slow, $command if $t->ran - $start > 4;
    }

    for my $path ('limits/leaky/2', 'locks/lock/2', 'idempotency/key-2?scope=',
                  'cache/pages?key=x', 'sessions/session/2',
                  'users/session/2', 'lookups/plan%3A1')
    {
        my $r = $nodes[0]->request('DELETE', "/api/$path");
        push @odd, "$command: $path " . $r->status . ' ' . $r->body
            if $r->status != 200
               && ($r->status != 503
                   || $r->body !~ /reason: (?:auth|protocol)\./);
    }

    $o->release("/closed/$_") for qw(conn lock line post);
    my @r = map { $_->response(timeout => 20) } @held;

    # nobody is told that there is a place

    push @odd, map { "$command: held: " . $_->status }
               grep { $_->status != 200
                      && ($command ne 'publish' || $_->status != 429) } @r;

    $conn->command('ACL', 'SETUSER', 'default', "+$command");

    for my $n (@nodes) {
        my $got = ask($n, 'closed');
        push @later, map { "$command: $_ $got->{$_}" }
                     grep { $got->{$_} ne $taken{$_} } keys %$got;
    }

    push @kept, "$command: " . join ' ', left("no-$command")
        if !$t->wait_for(sub { !left("no-$command") }, 20);
}

cmp_ok(scalar keys %commands, '>', 30, 'NOPERM: commands');
is_deeply(\@odd, [], 'NOPERM: by on_failure, or not at all');
is_deeply(\@slow, [], 'NOPERM: nobody waits');
is_deeply(\@later, [], 'NOPERM: over at once');
is_deeply(\@kept, [], 'NOPERM: nothing is left behind');

done_testing();
