#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# docs/inheritance.md, line by line: what a location takes from the levels
# above it, what replaces it, what ends it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Util qw(free_port);

my $t = Coord->new;
my $origin = $t->origin(default => sub { { body => "run $_[0]{n}" } });

$t->set(DEAD => free_port());

my $n = $t->node(name => 'n', http => <<'EOF')->start;
    coord_store mem { }
    coord_store away { server redis://127.0.0.1:%%DEAD%%; timeout 100ms; }

    coord_limit_req_zone $arg_k zone=server:1m rate=1r/h;
    coord_limit_req_zone $arg_k zone=both:1m rate=1r/h;
    coord_limit_req_zone $arg_k zone=own:1m rate=1r/h;
    coord_limit_req_zone $arg_k zone=dead:1m rate=1r/h store=away;
    coord_limit_conn_zone $arg_k zone=conns:1m;
    coord_session_zone $coord_session_id zone=people:1m;
    coord_lock_zone $arg_k zone=lock:1m;
    coord_cache_zone zone=cache:1m;

    coord_limit_req_status 430;

    server {
        listen 127.0.0.1:%%PORT%%;

        coord_limit_req zone=server burst=1 nodelay;
        coord_limit_req zone=both burst=5 nodelay;

        coord_session_cookie sid;
        coord_session zone=people;

        location /inherits { empty_gif; }
        location /own { coord_limit_req zone=own burst=2 nodelay; empty_gif; }
        location /off { coord_limit_req off; empty_gif; }
        location /status-only { coord_limit_req_status 431; empty_gif; }
        location /conn { coord_limit_conn conns 3; empty_gif; }

        location /outer {
            coord_limit_req zone=own burst=2 nodelay;
            coord_limit_req_status 432;

            location /outer/inner { empty_gif; }

            if ($arg_if) { set $x 1; }

            empty_gif;
        }

        location /from {
            coord_limit_req zone=own burst=2 nodelay;
            try_files /none /to;
        }

        location /to { empty_gif; }

        location /plain { coord_session off; coord_session_cookie off;
                          empty_gif; }

        location = /coord { coord_status; }
    }

    server {
        listen 127.0.0.1:%%PORT_2%%;

        coord_on_failure closed;
        coord_limit_req zone=dead;

        location /inherits { empty_gif; }
        location /open { coord_on_failure open; empty_gif; }
        location /line {
            coord_limit_req zone=dead on_failure=local;
            empty_gif;
        }
    }

    server {
        listen 127.0.0.1:%%PORT_3%%;

        coord_idempotency on;
        coord_idempotency_key $http_x_key;
        coord_idempotency_scope off;

        location /inherits { proxy_pass http://%%ORIGIN%%; }
        location /off { coord_idempotency off; proxy_pass http://%%ORIGIN%%; }
        location /required {
            coord_idempotency required;
            proxy_pass http://%%ORIGIN%%;
        }
        location /key {
            coord_idempotency_key $http_y_key;
            proxy_pass http://%%ORIGIN%%;
        }
    }

    server {
        listen 127.0.0.1:%%PORT_4%%;

        coord_lock zone=lock;
        coord_cache $uri zone=cache;
        coord_limit_req zone=own burst=99 nodelay;
        coord_limit_req_hold zone=own for=1h if=$arg_hold;
        coord_publish channel $uri;

        add_header X-Lock $coord_lock_status always;
        add_header X-Cache $coord_cache_status always;

        location /inherits { proxy_pass http://%%ORIGIN%%; }

        location /held-off {
            coord_limit_req_hold off;
            proxy_pass http://%%ORIGIN%%;
        }

        location /off {
            coord_lock off;
            coord_cache off;
            coord_publish off;
            coord_limit_req_hold zone=both for=1h if=$arg_hold;
            proxy_pass http://%%ORIGIN%%;
        }

        location = /page { coord_status; }
        location = /told { coord_status; coord_publish channel $uri;
                           if ($arg_if) { set $x 1; } }
    }

    server {
        listen 127.0.0.1:%%PORT_5%%;

        coord_session_cookie sid;
        coord_session zone=people new=reject;

        location /inherits { empty_gif; }
        location = /status { coord_status; }
        location = /no-cookie { coord_status; coord_session_cookie off; }
        location /api/ {
            coord_api;
            location /api/inside { empty_gif; }
        }

        location = /guarded {
            coord_status;
            coord_session zone=people new=reject;
            if ($arg_if) { set $x 1; }
        }

        location = /limited {
            coord_status;
            coord_limit_req zone=own;
            if ($arg_if) { set $x 1; }
        }
    }
EOF

sub statuses {
    my ($path, $times, @opt) = @_;

    return join ' ', map { $n->get($path, @opt)->status } 1 .. $times;
}


# limits: all lines of a directive, or none

is(statuses('/inherits?k=1', 3), '200 200 430',
   'a location without a line has those of the server');
is(statuses('/own?k=2', 4), '200 200 200 430',
   'one with a line has it in place of them; the status is still inherited');
is(statuses('/inherits?k=2', 3), '200 200 430',
   'and those were not asked: they have all their places');
is(statuses('/off?k=3', 4), '200 200 200 200', 'off: none');
is(statuses('/status-only?k=4', 3), '200 200 431',
   'a status alone replaces no line');
is(statuses('/conn?k=5', 3), '200 200 430',
   'nor does another directive');
is(statuses('/outer/inner?k=6', 4), '200 200 200 432',
   'a location inside takes from the one around it');
is(statuses('/outer?k=7&if=1', 4), '200 200 200 432',
   'so does an if');
is(statuses('/coord?k=8', 4), '200 200 200 200',
   'a status page has no limit that it inherits');


# where the request was first, that counts

is(statuses('/from?k=9', 4), '200 200 200 430',
   'a request that goes on elsewhere inside is decided once');
is(statuses('/to?k=9', 3), '200 200 430',
   'the limits of the other location were not asked');


# sessions

ok($n->get('/inherits')->header('Set-Cookie'), 'a cookie of the server');
ok(!$n->get('/plain')->header('Set-Cookie'), 'off: none');


# who looks has neither a session nor a cookie of the server

sub fifth {
    my $r = $n->request('GET', $_[0], port => $n->port(5));

    return $r->status . ($r->header('Set-Cookie') ? ' cookie' : '');
}

is(fifth('/inherits'), '403 cookie', 'a session of the server');
is(fifth('/status'), '200', 'status: none, and no cookie');
is(fifth('/no-cookie'), '200', 'status: none where the cookie is off');
like(fifth('/api/limits/own/1'), qr/^200$/, 'api: none, and no cookie');
is(fifth('/api/inside'), '403 cookie', 'a location inside has both');
is(fifth("/guarded$_"), '403 cookie', "its own counts, with the cookie: $_")
    for '', '?if=1';
is(join(' ', map { fifth("/limited?k=$_->[0]$_->[1]") } ([31, ''], [31, ''],
                                               [32, '&if=1'], [32, '&if=1'])),
   '200 430 200 430', 'a limit that is written there counts, with "if" too');


# the failure policy: of the line, of the location, of the server

sub second { $n->request('GET', $_[0], port => $n->port(2))->status }

is(second('/inherits?k=1'), 503, 'coord_on_failure of the server');
is(second('/open?k=1'), 200, 'of the location');
is(join(' ', map { second('/line?k=1') } 1, 2), '200 430', 'of the line');


# idempotency: each setting by itself

sub post {
    my ($path, %headers) = @_;

    return $n->request('POST', $path, port => $n->port(3), body => 'x',
                       headers => \%headers);
}

my $first = post('/inherits', 'X-Key' => 1)->body;
is(post('/inherits', 'X-Key' => 1)->body, $first, 'protected by the server');
isnt(post('/off', 'X-Key' => 1)->body, post('/off', 'X-Key' => 1)->body, 'off');
is(post('/required')->status, 400, 'another mode');
$first = post('/required', 'X-Key' => 2)->body;
is(post('/required', 'X-Key' => 2)->body, $first, 'with the key of the server');
isnt(post('/key', 'X-Key' => 3)->body, post('/key', 'X-Key' => 3)->body,
     'another key');
$first = post('/key', 'Y-Key' => 3)->body;
is(post('/key', 'Y-Key' => 3)->body, $first, 'in the mode of the server');



# locks, the cache, holds, events

sub fourth { $n->request('GET', $_[0], port => $n->port(4)) }

sub published {
    my ($sum) = (0);

    $sum += $_ for $n->get('/coord?format=prometheus')->body
        =~ /^coord_events_published_total\{.*\} (\d+)$/mg;

    return $sum;
}

my $r = fourth('/inherits?k=a');
is($r->header('X-Lock'), 'ACQUIRED', 'a lock of the server');
is($r->header('X-Cache'), 'MISS', 'a cache');
ok($t->wait_for(sub { published() == 1 }, 10), 'an event');

$r = fourth('/off?k=b');
is($r->header('X-Lock'), undef, 'off: no lock');
is($r->header('X-Cache'), undef, 'no cache');

fourth('/inherits?k=c');
ok($t->wait_for(sub { published() >= 2 }, 10), 'another event');
is(published(), 2, 'none of the location without');

is(fourth($_)->status, 200, $_) for '/page', '/told', '/told?if=1';
ok($t->wait_for(sub { published() >= 4 }, 10), 'a line of a status page counts');
is(published(), 4, 'one that it would inherit does not');

fourth('/off?k=d&hold=1');
fourth('/held-off?k=f&hold=1');
fourth('/inherits?k=e&hold=1');
ok($t->wait_for(sub { fourth('/inherits?k=e')->status == 430 }, 10),
   'a hold of the server');
is(fourth('/off?k=d')->status, 200, 'another line in place of it');
is(fourth('/inherits?k=f')->status, 200, 'none behind off');

done_testing();
