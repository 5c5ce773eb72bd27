#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_limit_conn wait= beside limits of other stores: each place is asked for
# where its zone is.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
my @redis = map { $t->redis } 1 .. 2;
my @r = map { $_->connect } @redis;
my $origin = $t->origin(default => sub { { delay => $_[0]{args}{d} || 0 } });

my $http = <<'EOF';
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_store other { server %%REDIS_2%%; timeout 30s; connect_timeout 30s; }

    coord_limit_conn_zone $arg_k zone=one:1m lease=20s;
    coord_limit_conn_zone $arg_j zone=two:1m lease=20s store=other;
    coord_limit_conn_zone $arg_j zone=three:1m lease=20s store=other;
    coord_limit_conn_zone $arg_m zone=mem:1m lease=20s store=local;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Status $coord_limit_conn_status always;
        add_header X-Zone $coord_limit_conn_zone always;

        location = /one { coord_limit_conn one 1;
                          proxy_pass http://%%ORIGIN%%; }
        location = /two { coord_limit_conn two 1;
                          proxy_pass http://%%ORIGIN%%; }
        location = /all { coord_limit_conn one 1 wait=20s;
                          coord_limit_conn two 1;
                          coord_limit_conn mem 1;
                          coord_limit_conn three 1;
                          proxy_pass http://%%ORIGIN%%; }
        location = /two_waits { coord_limit_conn one 1 wait=20s;
                                coord_limit_conn mem 1;
                                coord_limit_conn two 1 wait=20s;
                                proxy_pass http://%%ORIGIN%%; }
        location /coord/ { coord_api; }
    }
EOF

my ($a, $b) = map { $t->node(name => $_, workers => 2, http => $http)->start }
              qw(a b);

sub open_request {
    my ($node, $path) = @_;
    my $c = $node->connect;
    $c->send("GET $path HTTP/1.1\r\nHost: a\r\n\r\n");
    return $c;
}

sub held {
    my ($i, $zone) = @_;
    return $r[$i]->command('ZCARD', "coord:cc:$zone:{x}");
}

sub mem {
    return $b->get('/coord/conns/mem/x')->body =~ /"current": ?(\d+)/ ? $1 : '';
}

sub soon {
    my ($code, $name) = @_;
    ok($t->wait_for($code, 5), $name);
}

sub waits { $r[0]->command('ZCARD', 'coord:cc:one:{x}:w') == 1 }

sub foreign { join ' ', map { sort @{$_->[0]->command('KEYS', $_->[1])} }
                        [$r[0], 'coord:cc:t*'], [$r[1], 'coord:cc:o*'] }


# who has waited holds a place in each store

my $hold = open_request($a, '/one?k=x&d=60');
soon(sub { held(0, 'one') == 1 }, 'a place is held');
my $wait = open_request($b, '/all?k=x&j=x&m=x&d=60');
soon(\&waits, 'another one waits for it');
soon(sub { held(1, 'two') . mem() eq '00' }, 'and holds nothing elsewhere');
$hold->close;
soon(sub { held(0, 'one') == 1 && held(1, 'two') == 1 && held(1, 'three') == 1
           && mem() eq '1' }, 'then it holds one in each');
is(foreign(), '', 'and nothing where the zones are not');
is($a->get('/two?j=x')->status, 429, 'nobody else gets those');
$wait->close;
soon(sub { held(0, 'one') + held(1, 'two') + held(1, 'three') + mem() == 0 },
     'it gives all of them back');


# another store has no room when the turn has come

$hold = open_request($a, '/one?k=x&d=60');
soon(sub { held(0, 'one') == 1 }, 'a place is held');
$wait = open_request($b, '/all?k=x&j=x&m=x');
soon(\&waits, 'another one waits for it');
my $two = open_request($a, '/two?j=x&d=60');
soon(sub { held(1, 'two') == 1 }, 'meanwhile one in the other store is taken');
$hold->close;
my $response = $wait->response('GET', 10);
is(join(' ', $response->status, $response->header('X-Status'),
        $response->header('X-Zone')), '429 REJECTED two', 'it is refused there');
soon(sub { held(0, 'one') + held(1, 'three') + mem() == 0 },
     'and holds nothing');


# or waits there as well

$hold = open_request($a, '/one?k=x&d=60');
soon(sub { held(0, 'one') == 1 }, 'a place is held');
$wait = open_request($b, '/two_waits?k=x&j=x&m=x&d=60');
soon(\&waits, 'another one waits for it');
$hold->close;
soon(sub { $r[1]->command('ZCARD', 'coord:cc:two:{x}:w') == 1 },
     'then in the line of the other store');
soon(sub { held(0, 'one') + mem() == 0 }, 'holding nothing');
$two->close;
soon(sub { held(0, 'one') == 1 && held(1, 'two') == 1 && mem() eq '1' },
     'then it holds all');
is(foreign(), '', 'each in its store');
$wait->close;
soon(sub { held(0, 'one') + held(1, 'two') + mem() == 0 }, 'and none');


# or does not answer when the turn has come

$hold = open_request($a, '/one?k=x&d=60');
soon(sub { held(0, 'one') == 1 }, 'a place is held');
$wait = open_request($b, '/all?k=x&j=x&m=x');
soon(\&waits, 'another one waits for it');
$redis[1]->stop;
$hold->close;
is($wait->response('GET', 10)->status, 200,
   'a store that is away is passed over by on_failure');
soon(sub { held(0, 'one') + mem() == 0 }, 'and nothing is held');

done_testing();
