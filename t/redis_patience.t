#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A request waits once for a store that does not answer: look-ups, limits
# before and behind the access phase, a lock, an idempotency key, a page of the
# cache and what the content is in need of cost one "timeout" together.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis;
my $o = $t->origin;

my $n = $t->node(name => 'n', http => <<'EOF')->start;
    coord_store main { server %%REDIS%%; timeout 1s; connect_timeout 2s;
                       breaker failures=100000 cooldown=2s; }
    coord_store short { server %%REDIS%%; timeout 1s; connect_timeout 2s;
                        breaker failures=100000 cooldown=100ms; }
    coord_limit_req_zone $arg_k zone=one:1m rate=1r/h;
    coord_limit_req_zone $arg_k zone=two:1m rate=$rate;
    coord_limit_req_zone $arg_k zone=three:1m rate=1r/h store=short;
    coord_lock_zone $arg_k zone=lock:1m;
    coord_lock_zone $arg_k zone=again:1m store=short;
    coord_session_zone $arg_k zone=session:1m;
    coord_cache_zone zone=pages;
    coord_lookup $plan plan:$arg_k default=free;
    coord_lookup $rate rate:$plan$arg_k default=1r/s;
    coord_lookup $name name:$arg_k default=none;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Limit $coord_limit_req_status always;
        add_header X-Lock $coord_lock_status always;

        location /limit { coord_limit_req zone=one;
                          proxy_pass http://%%ORIGIN%%; }
        location /lookups { coord_limit_req zone=two;
                            proxy_pass http://%%ORIGIN%%; }
        location /lock { coord_limit_req zone=one;
                         coord_lock zone=lock on_failure=closed; empty_gif; }
        location /all { coord_limit_req zone=two;
                        coord_limit_req zone=one after_auth;
                        coord_lock zone=lock;
                        coord_session zone=session bind=1;
                        coord_idempotency on; coord_idempotency_scope off;
                        proxy_set_header X-Name $name;
                        proxy_pass http://%%ORIGIN%%; }
        location /cache { coord_limit_req zone=one;
                          coord_cache $arg_k zone=pages lock;
                          proxy_pass http://%%ORIGIN%%; }
        location /again { coord_limit_req zone=three;
                          auth_request /auth;
                          coord_lock zone=again on_failure=closed;
                          empty_gif; }
        location = /auth { internal;
                           proxy_pass http://%%ORIGIN%%/auth?delay=2; }
    }
EOF


# both stores, and both lanes of them

sub answers {
    return $t->wait_for(sub {
        my @r = map { $n->post("/$_?k=" . rand, 'x',
                               headers => { 'Idempotency-Key' => rand }) }
                    qw(all limit);
        my $again = $n->get('/cache?k=' . rand);

        return !grep { ($_->header('X-Limit') || '') ne 'PASSED' } @r, $again;
    }, 20);
}

# how long a request waits, at least and at most; on a busy machine the shortest
# of three tells

sub patience {
    my ($path) = @_;
    my ($r, $waited, $took);

    for (1 .. 3) {
        ok(answers(), "$path: Redis answers");

        $redis->freeze;
        my ($time, $began) = (time, $t->ran);
        $r = $n->post("/$path?k=" . rand, 'x',
                      headers => { 'Idempotency-Key' => rand });
        ($waited, $took) = (time - $time, $t->ran - $began);
        kill 'CONT', $redis->{pid};

        last if $took < 1.7;
    }

    return ($r, $waited, $took);
}

for my $path (qw(limit lookups lock all cache)) {
    my ($r, $waited, $took) = patience($path);

    is($r->status, $path eq 'lock' ? 503 : 200, "$path: by on_failure");
    cmp_ok($waited, '>', 0.7, "$path: it has waited");
    cmp_ok($took, '<', 1.7, "$path: once");
}


# but what comes later, when the breaker would ask again, is asked

ok(answers(), 'again: Redis answers');
is($n->get('/again?k=0')->status, 200, 'again: both stores are connected');

$redis->freeze;
my $c = $n->connect;
$c->send("GET /again?k=1 HTTP/1.1\r\nHost: x\r\n\r\n");
ok($t->wait_for(sub { $o->count('/auth') == 2 }, 10), 'again: no answer');
kill 'CONT', $redis->{pid};

my $r = $c->response(timeout => 10);
is($r->header('X-Limit'), 'BYPASSED', 'again: the limit had none');
is($r->header('X-Lock'), 'ACQUIRED', 'again: the lock has one');

done_testing();
