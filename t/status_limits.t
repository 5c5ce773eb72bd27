#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Health, status and API answer whatever limits a level above them has; what
# stands in their own location limits them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;

my $n = $t->node(name => 'n', http => <<'EOF')->start;
    map $server_port $none { default 0; }

    coord_limit_req_zone $server_port zone=req:1m rate=1r/h;
    coord_limit_req_zone $server_port zone=own:1m rate=1r/h;
    coord_limit_conn_zone $server_port zone=conn:1m;
    coord_lock_zone $server_port zone=lock:1m;
    coord_session_zone $http_x_session zone=session:1m;

    coord_limit_req zone=req;
    coord_limit_conn conn $none;
    coord_lock zone=lock;
    coord_session zone=session missing=reject;
    coord_idempotency required;
    coord_idempotency_methods GET DELETE;

    server {
        listen 127.0.0.1:%%PORT%%;
        location / { empty_gif; }
        location = /health { coord_health; }
        location = /status { coord_status keys; }
        location /api/ { coord_api write; }

        location /one/ {
            location = /one/health { coord_health; }
        }

        location = /own {
            coord_limit_req zone=own;
            coord_health;
        }

        location = /after {
            coord_health;
            coord_limit_req zone=own;
        }
    }
EOF

isnt($n->get('/')->status, 200, 'limits of http {} hold');

for my $path ('/health', '/status', '/status?format=prometheus',
              '/api/limits/req/x', '/one/health')
{
    is(join(' ', map { $n->get($path)->status } 1 .. 3), '200 200 200',
       "not for $path");
}

is($n->request('DELETE', '/api/limits/req/x')->status, 200, 'nor for a reset');

is(join(' ', map { $n->get($_)->status } '/own', '/own', '/after'),
   '200 429 429', 'a limit of the location itself holds');

done_testing();
