#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_idempotency when things fail: upstreams, workers, Redis, records.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP;

use JSON::PP;
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis;
my $fake = $t->fake_redis(upstream => $redis->{port});

my $killed = 0;

my $origin = $t->origin(routes => {
    '/slow' => { delay => 4, body => 'slow' },
    '/second' => { delay => 1, body => 'second' },
    '/once' => { body => 'second' },
    '/hang' => { delay => 6, body => 'late' },
    '/killed' => sub {
        # the second one is what is asked for
        return { delay => $killed++ ? 0.2 : 30, body => 'late' };
    },
});

my $http = <<'EOF';
    log_format status '$uri $status $coord_idempotency_status';
    access_log %%NODEDIR%%/status.log status;
    coord_idempotency_lease 2s;
    coord_idempotency_scope off;

    server {
        listen 127.0.0.1:%%PORT%%;

        location / { coord_idempotency on; proxy_pass http://%%ORIGIN%%; }

        location /closed/ {
            coord_idempotency on on_failure=closed;
            proxy_pass http://%%ORIGIN%%/;
        }

        location /local/ {
            coord_idempotency on on_failure=local;
            proxy_pass http://%%ORIGIN%%/;
        }

        location /strict/ {
            coord_idempotency on;
            coord_idempotency_on_unknown conflict;
            proxy_read_timeout 1s;
            proxy_pass http://%%ORIGIN%%/;
        }

        location /run/ {
            coord_idempotency on;
            proxy_read_timeout 1s;
            proxy_pass http://%%ORIGIN%%/;
        }

        location /refused/ {
            coord_idempotency on;
            coord_idempotency_on_unknown conflict;
            proxy_pass http://127.0.0.1:%%PORT_9%%/;
        }

        location /page/ {
            coord_idempotency on;
            coord_idempotency_on_unknown conflict;
            error_page 502 504 =200 /page.html;
            proxy_read_timeout 1s;
            proxy_pass http://%%ORIGIN%%/;
        }

        location = /page.html { empty_gif; }
    }
EOF

my $main = 'coord_store main { server %%REDIS%%; timeout 1s;'
           . ' connect_timeout 1s; }';
my $n = $t->node(name => 'n', workers => 2, http => $main . $http)->start;
my $serial = 0;


sub key { return [ 'Idempotency-Key' => ($_[0] || 'k') . ++$serial ] }


# asks until there is an answer

sub settled {
    my ($node, $path, $h) = @_;

    my $r;

    $t->wait_for(sub {
        $r = $node->post($path, 'b', headers => $h, timeout => 20);
        return $r->status != 409 && $r->status != 503;
    }, 20);

    return $r;
}


sub start {
    my ($node, $path, $h) = @_;

    my $conn = $node->connect;

    $conn->send(Coord::HTTP::format(method => 'POST', path => $path,
                                    body => 'b', headers => $h));

    return $conn;
}


# a lease of two seconds, an upstream of four

{
    my $h = key();
    my $conn = start($n, '/slow', $h);

    sleep 3.2;
    my $r = $n->post('/slow', 'b', headers => $h);
    is($r->status, 409, 'the lease is renewed');
    cmp_ok($r->header('Retry-After'), '<=', 2, 'Retry-After');
    is($conn->response(method => 'POST', timeout => 10)->status, 200,
       'slow: response');
    is($origin->count('/slow'), 1, 'slow: once');
}


# the outcome is unknown, or known

{
    my ($run, $strict, $page) = map { key() } 1 .. 3;
    my $before = $origin->count('/hang');

    # all at once: each takes a second

    my $ask = sub {
        my @req = map { $n->req($_->[0], method => 'POST', body => 'b',
                                headers => $_->[1]) }
                  [ '/run/hang', $run ], [ '/strict/hang', $strict ],
                  [ '/page/hang', $page ];
        return $t->parallel(\@req);
    };

    my @r = $ask->();
    is($r[0]->status, 504, 'on_unknown run: timeout');
    is($r[1]->status, 504, 'on_unknown conflict: timeout');
    is($r[2]->status, 200, 'an error page in its place');

    # a worker tells the store that nobody knows when its request has ended

    ok($t->wait_for(sub {
        $n->post('/strict/hang', 'b', headers => $strict)->body
            =~ /without a known outcome/;
    }, 10), 'on_unknown conflict: marked');

    @r = $ask->();
    is($r[0]->status, 504, 'on_unknown run: again');
    is($r[1]->status, 409, 'on_unknown conflict');
    like($r[1]->body, qr/without a known outcome/, 'on_unknown conflict: why');
    is($r[1]->header('Retry-After'), undef, 'on_unknown conflict: not soon');
    is($r[2]->status, 409, 'an error page is no outcome');

    sleep 2.5;
    is($n->post('/strict/hang', 'b', headers => $strict)->status, 409,
       'on_unknown conflict: for longer than the lease');
    is($n->post('/strict/hang', 'other', headers => $strict)->status, 422,
       'on_unknown conflict: another request');
    is($origin->count('/hang'), $before + 4,
       'on_unknown run: executed again, others are not');

    # told once a second, with their number

    my $told = sub { scalar $n->log_lines(qr/the outcome is unknown/) };
    my $lines = $told->();

    @r = $t->parallel([ map { $n->req('/run/hang', method => 'POST',
                                      body => 'b', headers => key()) }
                        1 .. 12 ]);
    is(join(' ', map { $_->status } @r), join(' ', (504) x 12), 'twelve more');
    cmp_ok($told->() - $lines, '<', 6, 'few lines');
    like($n->log, qr/the outcome is unknown.*, \d+ requests/, 'with a number');

    my $h;

    $h = key();
    is($n->post('/refused/x', 'b', headers => $h)->status, 502, 'refused')
        for 1, 2;
}


# a worker is killed while it owns a claim

{
    my $h = key();
    my $before = $origin->count('/killed');
    my $conn = start($n, '/killed', $h);

    $t->wait_for(sub { $origin->count('/killed') == $before + 1 }, 10);
    $n->kill_worker('KILL', $_) for $n->workers;

    my $from = time();
    my $r = settled($n, '/killed', $h);
    is($r->body, 'late', 'killed: executed again');
    cmp_ok(time() - $from, '<', 15, 'killed: after the lease');
    is($origin->count('/killed'), $before + 2, 'killed: once more');
    like($n->log, qr/an earlier run has not ended/, 'killed: logged');
}


# reload while a request runs

{
    my $h = key();
    my $before = $origin->count('/slow');
    my $conn = start($n, '/slow', $h);

    $t->wait_for(sub { $origin->count('/slow') == $before + 1 }, 10);
    my @old = $n->reload;
    $conn->reset;

    is($n->post('/slow', 'b', headers => $h)->status, 409,
       'reload: the claim stands');
    my $r = settled($n, '/slow', $h);
    is($r->header('Idempotency-Replayed'), 'true', 'reload: stored');
    is($origin->count('/slow'), $before + 1, 'reload: once');
    ok($n->wait_gone(10, @old), 'reload: old workers leave');
}


# two nodes with two workers each

{
    my $b = $t->node(name => 'b', workers => 2, http => $main . $http)->start;
    my $h = key();
    my $before = $origin->count('/second');
    my @requests = map { $_->req('/second', method => 'POST', body => 'b',
                                 headers => $h) } ($n, $b) x 100;
    my @r = $t->parallel(\@requests);

    is(scalar(grep { $_->status == 200 } @r), 1, 'two nodes: one of 200');
    is(scalar(grep { $_->status == 409 } @r), 199, 'two nodes: others wait');
    is($origin->count('/second'), $before + 1, 'two nodes: one execution');
    is($_->post('/second', 'b', headers => $h)->body, 'second',
       'two nodes: replayed') for $n, $b;
    $b->stop;
}


# records that are no good

{
    my $c = $redis->connect;
    my ($h, $record, @bad) = damaged($c, '/once');
    my $before = $origin->count('/once');
    my $wrong = 0;

    for my $bad (@bad[0 .. 6]) {
        $c->command('SET', $record, $bad, 'KEEPTTL');
        my $r = $n->post('/once', 'b', headers => $h);
        $wrong++ if $r->status != 200 || $r->body ne 'second'
                    || $r->header('Idempotency-Replayed');
        $r = $n->post('/once', 'b', headers => $h);
        $wrong++ if ($r->header('Idempotency-Replayed') || '') ne 'true';
    }

    is($wrong, 0, 'damaged records are absent, and replaced');
    is($origin->count('/once'), $before + 7, 'one execution each');
    like($n->log, qr/ignoring a damaged record/, 'logged');

    ($h, $record, @bad) = damaged($c, '/second');
    my @requests = map { $n->req('/second', method => 'POST', body => 'b',
                                 headers => $h) } 1 .. 20;
    for my $bad (@bad[7 .. 9]) {
        $before = $origin->count('/second');
        $c->command('SET', $record, $bad, 'KEEPTTL');
        my @r = $t->parallel(\@requests);
        is($origin->count('/second'), $before + 1,
           'damaged, 20 at once: one execution');
    }

    $c->command('DEL', $record);
    my $r = $n->post('/second', 'b', headers => $h);
    is($r->status, 200, 'record lost, its mark not: executed');
    is($r->header('Idempotency-Replayed'), undef, 'not replayed');
    $r = $n->post('/second', 'b', headers => $h);
    is($r->header('Idempotency-Replayed'), 'true', 'stored again');
}

$n->stop;


# Redis fails, at each step

my $f = $t->node(name => 'f', http =>
    'coord_store main { server %%FAKE%%; timeout 300ms; connect_timeout 1s; '
    . 'breaker failures=1000; }' . $http)->start;

is($f->post('/x', 'b', headers => key())->status, 200, 'Redis works');

{
    # the claim
    $fake->fault(action => 'stall', cmd => 'EXEC', times => 1);
    is($f->post('/x', 'b', headers => key())->status, 200, 'claim: open');
    ok($t->wait_for(sub {
           return Coord::Util::slurp($f->file('status.log'))
                  =~ m!/x 200 BYPASSED!;
       }, 10), 'claim: BYPASSED');
    ok($f->wait_log(qr/is not protected, on_failure=open by zone .* requests/,
                    10), 'claim: open, logged with the policy and a number');
    $fake->clear;
    recovered();

    # there is one such line a second, and another request may have had it

    $t->rest(1.1);

    $fake->fault(action => 'stall', cmd => 'EXEC', times => 1);
    my $r = $f->post('/closed/x', 'b', headers => key());
    is($r->status, 503, 'claim: closed');
    is(decode_json($r->body)->{code}, 'store-unavailable', 'claim: code');
    ok($r->header('Retry-After'), 'claim: Retry-After');
    ok($f->wait_log(qr/refusing request, on_failure=closed by zone .* requests/,
                    10), 'claim: closed, logged with the policy and a number');
    $fake->clear;
    recovered();

    my $h = key();
    my $before = $origin->count;
    $fake->fault(action => 'stall', cmd => 'EXEC', times => 0);
    $f->post('/local/x', 'b', headers => $h);
    $r = $f->post('/local/x', 'b', headers => $h);
    is($r->header('Idempotency-Replayed'), 'true', 'claim: local');
    is($origin->count, $before + 1, 'claim: local, once');
    $fake->clear;
    recovered();
}

{
    # the result cannot be stored: the lease goes on to protect
    my $h = key();
    my $before = $origin->count('/second');
    my $conn = start($f, '/closed/second', $h);

    $t->wait_for(sub { $origin->count('/second') == $before + 1 }, 10);
    $fake->fault(action => 'close', cmd => 'EXEC', times => 1);
    is($conn->response(method => 'POST', timeout => 10)->body, 'second',
       'complete: the client gets its response');
    $fake->clear;

    my $r = settled($f, '/closed/second', $h);
    is($r->header('Idempotency-Replayed'), 'true', 'complete: stored later');
    is($origin->count('/second'), $before + 1, 'complete: once');
    recovered();
}

{
    # while it runs
    my $h = key();
    my $before = $origin->count('/slow');
    my $conn = start($f, '/closed/slow', $h);

    $t->wait_for(sub { $origin->count('/slow') == $before + 1 }, 10);
    $fake->drop_all;
    is($conn->response(method => 'POST', timeout => 10)->body, 'slow',
       'renew: the client gets its response');
    my $r = settled($f, '/closed/slow', $h);
    is($r->header('Idempotency-Replayed'), 'true', 'renew: stored');
    is($origin->count('/slow'), $before + 1, 'renew: once');
    recovered();
}

{
    # Redis loses all it knows
    my $h = key();
    my $before = $origin->count('/slow');
    my $conn = start($f, '/slow', $h);

    $t->wait_for(sub { $origin->count('/slow') == $before + 1 }, 10);
    $redis->connect->command('FLUSHALL');
    sleep 1.5;
    is($f->post('/slow', 'b', headers => $h)->status, 409,
       'flushed: the holder claims again');
    is($conn->response(method => 'POST', timeout => 10)->body, 'slow',
       'flushed: the client gets its response');
    my $r = settled($f, '/slow', $h);
    is($r->header('Idempotency-Replayed'), 'true', 'flushed: stored');
    is($origin->count('/slow'), $before + 1, 'flushed: once');
}

done_testing();


sub recovered {
    my $ok = $t->wait_for(sub {
        my $h = key('r');
        $f->post('/x', 'b', headers => $h);
        return $f->post('/x', 'b', headers => $h)
                 ->header('Idempotency-Replayed');
    }, 10);

    ok($ok, 'Redis is back');
}


# a key whose record is stored, the name of this, and what is none of it

sub damaged {
    my ($c, $path) = @_;

    my $h = key();
    my %seen = map { $_ => 1 } @{$c->command('KEYS', 'coord:id:*:r')};

    $n->post($path, 'b', headers => $h);

    my ($record) = grep { !$seen{$_} } @{$c->command('KEYS', 'coord:id:*:r')};
    my $blob = $c->command('GET', $record);
    my @bad;

    push @bad, substr($blob, 0, $_) for 1, 20, 60, length($blob) - 1;
    push @bad, $blob . 'x', 'x' x 200, 'crd' . chr(2) . substr($blob, 4);

    for (1 .. 40) {
        my $copy = $blob;
        my $at = int rand length $copy;

        substr($copy, $at, 1) = chr(ord(substr($copy, $at, 1))
                                    ^ (1 << int rand 8));
        push @bad, $copy;
    }

    return ($h, $record, @bad);
}
