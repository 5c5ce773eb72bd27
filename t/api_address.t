#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Zones by client address: the API knows a key by the address, however it is
# written, and pages show it; a key that is not known is not called "not
# refused".

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

use JSON::PP;

plan(skip_all => 'curl is missing')
    unless grep { -x "$_/curl" } split /:/, $ENV{PATH};

my $t = Coord->new;
my $redis = $t->redis;
my $origin = $t->origin(routes => { '/slow' => { delay => 20, body => 's' } });
my $six = -s '/proc/net/if_inet6';

my $http = <<'EOF';
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_store mem { }

    coord_limit_req_zone $binary_remote_addr zone=one:1m rate=1r/h STORE;
    coord_limit_req_zone "${binary_remote_addr}" zone=fixed:1m rate=1r/h
                         algorithm=fixed_window STORE;
    coord_limit_req_zone $binary_remote_addr$arg_k zone=both:1m rate=1r/h
                         STORE;
    coord_limit_req_zone $binary_remote_addr zone=none:1m rate=$arg_rate STORE;
    coord_limit_req_zone $binary_remote_addr zone=held:1m rate=1r/s STORE;
    coord_limit_conn_zone $binary_remote_addr zone=conn:1m STORE;
    coord_limit_conn_zone $arg_k zone=named:1m STORE;
    coord_lock_zone $binary_remote_addr zone=lock:1m STORE;

    set_real_ip_from 127.0.0.1;
    real_ip_header X-From;

    server {
        listen 127.0.0.1:%%PORT%%;
        LISTEN

        location / { coord_limit_req zone=one; empty_gif; }
        location /fixed { coord_limit_req zone=fixed; empty_gif; }
        location /both { coord_limit_req zone=both; empty_gif; }
        location /none { coord_limit_req zone=none; empty_gif; }

        location /held {
            coord_limit_req zone=held;
            coord_limit_req_hold zone=held for=1h;
            empty_gif;
        }

        location /conn {
            coord_limit_conn conn 1;
            proxy_pass http://%%ORIGIN%%/slow;
        }

        location /named {
            coord_limit_conn conn $arg_any;
            coord_limit_conn named $arg_none;
            empty_gif;
        }

        location /lock {
            coord_lock zone=lock;
            proxy_pass http://%%ORIGIN%%/slow;
        }

        location /api/ { coord_api write; }
        location = /status { coord_status keys; }
    }
EOF

my $listen = $six ? 'listen [::1]:%%PORT%%; listen [::]:%%PORT_2%% ipv6only=off;'
                  : '';
$http =~ s/LISTEN/$listen/;

for my $kind ('redis', 'memory') {
    my $store = $kind eq 'redis' ? '' : 'store=mem';
    my $n = $t->node(name => $kind, workers => 2,
                     http => $http =~ s/STORE/$store/gr)->start;
    my ($port, $dual) = ($n->port, $n->port(2));

    my $look = sub { decode_json($n->get("/api/$_[0]")->body) };

    my $drop = sub {
        decode_json($n->request('DELETE', "/api/$_[0]")->body)->{deleted};
    };

    my $status = sub {
        return `curl -g -s -o /dev/null -w '%{http_code}' @_`;
    };

    my $keys = sub {
        my ($name) = @_;
        my ($zone) = grep { $_->{zone} eq $name }
            @{ decode_json($n->get('/status?format=json')->body)->{zones} };
        return [ map { $_->{key} } @{ $zone->{keys} } ];
    };

    # nobody has asked for anything

    for my $zone ('one', 'fixed') {
        my $json = $look->("limits/$zone/127.0.0.1");
        is($json->{refused}, undef, "$kind $zone: unknown is not refused:false");
        ok(defined $json->{known} && !$json->{known}, "$kind $zone: it says so");
        is($json->{remaining}, 1, "$kind $zone: and what it would get");
    }

    # one client by its address

    for (['one', '/'], ['fixed', '/fixed']) {
        my ($zone, $path) = @$_;

        is($n->get($path)->status, 200, "$kind $zone: passed");
        ok($look->("limits/$zone/127.0.0.1")->{known}, "$kind $zone: known");
        is($n->get($path)->status, 429, "$kind $zone: refused");
        ok($look->("limits/$zone/127.0.0.1")->{refused},
           "$kind $zone: the API says so");
        is($look->("limits/$zone/127.0.0.2")->{refused}, undef,
           "$kind $zone: not of another one");
        is_deeply($keys->($zone), ['127.0.0.1'], "$kind $zone: shown");

        is($n->get($path)->status, 429, "$kind $zone: refused, as known")
            for 1, 2;
        is_deeply($keys->($zone), ['127.0.0.1'], "$kind $zone: still");

        ok(!$drop->("limits/$zone/127.0.0.2"), "$kind $zone: not that");
        ok($drop->("limits/$zone/127.0.0.1"), "$kind $zone: reset");
        is($n->get($path)->status, 200, "$kind $zone: let through");
    }

    # the address as realip says

    my @from = (headers => { 'X-From' => '192.0.2.7' });
    is($n->get('/', @from)->status, $_, "$kind realip") for 200, 429;
    ok($look->('limits/one/192.0.2.7')->{refused}, "$kind realip: known");
    is(join(' ', sort @{ $keys->('one') }), '127.0.0.1 192.0.2.7',
       "$kind realip: shown");

    # four bytes that are letters are an address as well

    @from = (headers => { 'X-From' => '65.66.67.68' });
    is($n->get('/', @from)->status, $_, "$kind letters") for 200, 429;
    ok($look->('limits/one/65.66.67.68')->{refused}, "$kind letters: known");

    # refused without a look

    is($n->get('/none?rate=0r/s')->status, 429, "$kind a rate of 0");
    is_deeply($keys->('none'), ['127.0.0.1'], "$kind a rate of 0: shown");

    is($n->get('/held')->status, $_, "$kind held") for 200, 429, 429, 429;
    is_deeply($keys->('held'), ['127.0.0.1'], "$kind held: shown");

    # another key is no address

    is($n->get('/both?k=x')->status, $_, "$kind both") for 200, 429;
    is($look->('limits/both/127.0.0.1')->{refused}, undef,
       "$kind both: by address and more");
    like($keys->('both')->[0], qr/^~[0-9a-f]{32}$/, "$kind both: shown");
    ok($look->('limits/both/' . $keys->('both')->[0])->{refused},
       "$kind both: by its digest");

    # nor is one behind an address whose limit is none

    is($n->get('/named?k=x&any=many&none=0')->status, 429, "$kind named");
    is_deeply($keys->('named'), ['x'], "$kind named: shown");

    # leases and locks

    ok(!$look->('conns/conn/127.0.0.1')->{known}, "$kind conns: unknown");

    my $holder = $n->connect;
    $holder->send("GET /conn HTTP/1.1\r\nHost: a\r\n\r\n");
    ok($t->wait_for(sub {
        $look->('conns/conn/127.0.0.1')->{current} == 1;
    }, 10), "$kind conns");
    is($n->get('/conn')->status, 429, "$kind conns: full");
    is_deeply($keys->('conn'), ['127.0.0.1'], "$kind conns: shown");
    $holder->close;

    $holder = $n->connect;
    my $before = $origin->count('/slow');
    $holder->send("GET /lock HTTP/1.1\r\nHost: a\r\n\r\n");
    ok($t->wait_for(sub { $origin->count('/slow') > $before }, 10),
       "$kind locked");
    ok($drop->('locks/lock/127.0.0.1'), "$kind the lock is taken away");
    ok(!$drop->('locks/lock/127.0.0.1'), "$kind it is free");
    $holder->close;

    next if !$six;

    # IPv6, in any spelling

    is($status->("http://[::1]:$port/"), $_, "$kind IPv6") for 200, 429;

    for ('::1', '0:0:0:0:0:0:0:1', '0000::0001', '%3A%3A1', '::0.0.0.1',
         '[::1]', '0:0::1')
    {
        ok($look->("limits/one/$_")->{refused}, "$kind IPv6: $_");
    }

    ok(grep($_ eq '::1', @{ $keys->('one') }), "$kind IPv6: shown");
    ok($drop->('limits/one/0::1'), "$kind IPv6: reset");
    is($status->("http://[::1]:$port/"), 200, "$kind IPv6: let through");

    # a socket for both families

    is($status->("http://127.0.0.1:$dual/fixed"), 200, "$kind mapped");
    is($n->get('/fixed')->status, 429, "$kind mapped: another key");
    ok($drop->('limits/fixed/127.0.0.1'), "$kind mapped: reset");
    is($status->("http://127.0.0.1:$dual/fixed"), $_, "$kind mapped: again")
        for 200, 429;

    for ('127.0.0.1', '::ffff:127.0.0.1', '::FFFF:7f00:1') {
        ok($look->("limits/fixed/$_")->{refused}, "$kind mapped: $_");
    }
}

done_testing();
