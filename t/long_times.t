#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Times of a thousand years, which are more nanoseconds than a number has: what
# they are for is kept, in Redis and in memory.  Months and years, as nginx has
# them in times that it counts in seconds.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Config;
use Coord;

# the longest that nginx takes where it counts milliseconds in 32 bits
my $long = $Config{ptrsize} == 8 ? '365000d' : '24d';

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;

my $origin = $t->origin(default => sub {
    my ($req) = @_;
    return { body => $req->{uri} =~ /loaded/ ? 'loaded' : "n $req->{n}" };
});

for my $store ('redis', 'memory') {
    my $main = $store eq 'redis'
             ? 'coord_store main { server %%REDIS%%; timeout 30s; '
               . 'connect_timeout 30s; }'
             : '';

    my $node = $t->node(name => $store, http => <<"EOF")->start;
    $main
    coord_cache_zone zone=pages:1m;
    coord_session_zone \$arg_s zone=people:1m ttl=$long;
    coord_lookup \$loaded loaded:\$arg_l load=/loaded ttl=$long
                 negative_ttl=$long;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Cache \$coord_cache_status always;
        add_header X-Loaded \$loaded always;

        location / { proxy_pass http://%%ORIGIN%%; }
        location /cache {
            coord_cache \$uri zone=pages valid=$long stale=$long;
            proxy_pass http://%%ORIGIN%%;
        }
        location /order {
            coord_idempotency on;
            coord_idempotency_scope off;
            coord_idempotency_ttl $long;
            coord_idempotency_lease $long;
            coord_idempotency_wait $long;
            proxy_pass http://%%ORIGIN%%;
        }
        location = /look { empty_gif; }
    }
EOF

    ok($t->wait_for(sub {
           $node->get('/cache')->header('x-cache') eq 'HIT';
       }, 5), "$store: a response");

    my $body = $node->post('/order', 'x', headers =>
                           ['Idempotency-Key' => 'k1'])->body;
    my $res = $node->post('/order', 'x', headers =>
                          ['Idempotency-Key' => 'k1']);
    is($res->status, 200, 'an order');
    is($res->body, $body, 'that was answered');

    $origin->reset_counters;
    is(join(' ', map { $node->get('/look?l=1')->header('x-loaded') } 1 .. 5),
       'loaded loaded loaded loaded loaded', 'a look-up');
    is($origin->count('/loaded'), 1, 'that was asked for once');

    if ($store eq 'redis') {
        $node->get('/look?l=1');
        my ($before) = $r->command('INFO', 'commandstats')
                       =~ /cmdstat_get:calls=(\d+)/;
        $node->get('/look?l=1') for 1 .. 5;
        is(($r->command('INFO', 'commandstats')
            =~ /cmdstat_get:calls=(\d+)/)[0], $before, 'and read once');
        my ($least) = sort { $a <=> $b } map { $r->command('PTTL', $_) }
                      map { ref $_ ? @$_ : $_ } $r->command('KEYS', '*');
        cmp_ok($least, '>', 0, 'all keys have an end') or diag($least);
    }
}

# --- months and years ---

my $n = $t->node(name => 'units', http => <<'EOF')->start;
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_cache_zone zone=shelf:1m;
    coord_session_zone $arg_s zone=guests:1m ttl=1M absolute=1y;
    coord_limit_req_zone $arg_s zone=held:1m rate=10r/s;
    coord_lookup $tier tier:$arg_l load=/loaded ttl=1y negative_ttl=1M;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Cache $coord_cache_status always;
        add_header X-Tier $tier always;

        location / { proxy_pass http://%%ORIGIN%%; }
        location /shelf {
            coord_cache $uri zone=shelf valid=1M stale=1y;
            proxy_pass http://%%ORIGIN%%;
        }
        location /order {
            coord_idempotency on;
            coord_idempotency_scope off;
            coord_idempotency_ttl 1y;
            proxy_pass http://%%ORIGIN%%;
        }
        location /guest {
            coord_session zone=guests bind=$arg_b;
            coord_limit_req zone=held;
            coord_limit_req_hold zone=held for=1M;
            coord_publish told $arg_s history=5 ttl=1y;
            proxy_pass http://%%ORIGIN%%;
        }
        location = /look { empty_gif; }
    }
EOF

$r->command('FLUSHALL');

is($n->get('/shelf')->header('x-cache'), 'MISS', 'units: a response');
is($n->post('/order', 'x', headers => ['Idempotency-Key' => 'k2'])->status,
   200, 'an order');
is($n->get('/guest?s=one&b=two')->status, 200, 'a session, and what ends it');
is($n->get('/look?l=2')->header('x-tier'), 'loaded', 'a look-up');

for (['ca:shelf:*:r', 30], ['id:*', 365], ['ss:guests:*', 30],
     ['rh:held:*', 30], ['ev:*', 365], ['tier:2', 365])
{
    my ($key, $days) = @$_;
    my $pattern = $key =~ /^tier/ ? $key : "coord:$key";
    my ($name, $life);

    ok($t->wait_for(sub { ($name) = @{ $r->command('KEYS', $pattern) } }, 5),
       "there is $key");
    $life = $r->command('PTTL', $name) / 86400_000;
    ok($life > $days - 0.01 && $life < $days + 1, "for $days days")
        or diag("$name $life");
}

like($t->conf_error(http => "coord_session_zone \$arg_s zone=a ttl=1x;"),
     qr/invalid time "1x" in "ttl="/, 'and no other unit');
like($t->conf_error(http => 'coord_idempotency_ttl 1y1y;'),
     qr/"coord_idempotency_ttl" directive invalid value/, 'once each');

done_testing();
