#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_session create= and coord_sticky in front of applications as they are:
# the cookies of Java, PHP and Node.js, of servers that know only the sessions
# that they have issued, over two nodes.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
my $redis = $t->redis;

my %name = (java => 'JSESSIONID', php => 'PHPSESSID', node => 'connect.sid');
my @apps = map { app($_) } 1 .. 4;

$t->set(map { ("APP$_" => $apps[$_ - 1]->addr) } 1 .. 4);

my $http = <<'EOT';
    coord_store main { server %%REDIS%%; timeout 5s; connect_timeout 5s; }

    # a name with a dot is none of a variable

    map $http_cookie $node_sid {
        "~(?:^|;\s*)connect\.sid=(?<sid>[^;\s]+)"  $sid;
    }

    map $upstream_http_set_cookie $node_issued {
        "~(?:^|,\s*)connect\.sid=(?<issued>[^;,\s]+)"  $issued;
    }

    coord_session_zone $cookie_jsessionid zone=java:1m ttl=1h;
    coord_session_zone $cookie_phpsessid zone=php:1m ttl=1h;
    coord_session_zone $node_sid zone=node:1m ttl=1h;

    upstream app {
        zone app 256k;
        server %%APP1%% max_fails=1 fail_timeout=60s;
        server %%APP2%% max_fails=1 fail_timeout=60s;
        server %%APP3%% max_fails=1 fail_timeout=60s;
        server 127.0.0.1:1 down;
        server %%APP4%% backup;
        coord_sticky $coord_session_value;
        keepalive 8;
    }

    server {
        listen 127.0.0.1:%%PORT%%;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_next_upstream error timeout non_idempotent;
        add_header X-Session $coord_session_status always;

        location /java/ {
            coord_session zone=java create=$upstream_cookie_jsessionid
                          learn=$upstream_addr;
            proxy_pass http://app;
        }
        location /php/ {
            coord_session zone=php create=$upstream_cookie_phpsessid
                          learn=$upstream_addr;
            proxy_pass http://app;
        }
        location /node/ {
            coord_session zone=node create=$node_issued learn=$upstream_addr;
            proxy_pass http://app;
        }
    }
EOT

my @n = map { $t->node(name => $_, workers => 2, http => $http)->start } 'a', 'b';

sub cookie {
    my ($r, $kind) = @_;

    my ($id) = grep { defined }
               map { /^\Q$name{$kind}\E=([^;]*)/ ? $1 : undef }
               @{$r->{headers}{'set-cookie'} || []};

    return $id;
}

sub page {
    my ($n, $kind, $id, $path) = @_;

    return $n->get("/$kind/" . ($path || 'page'), headers => {
        Cookie => "a=b; $name{$kind}=$id; x$name{$kind}=other" });
}

for my $kind (sort keys %name) {
    my ($wrong, %at, @ids) = (0);

    for my $i (1 .. 30) {
        my $r = $n[$i % 2]->post("/$kind/login", '');
        my $id = cookie($r, $kind);

        push @ids, $id;
        $at{$r->body}++;

        # the first request behind it, on the other node, and more

        $wrong += grep { $_->body ne $r->body || $_->status != 200 }
                  map { page($n[$_ % 2], $kind, $id) } $i + 1, $i, $i + 1;
    }

    is($wrong, 0, "$kind: of 90 requests none at the wrong server");
    is(scalar(keys %at), 3, "$kind: of all servers") or diag(join ' ', %at);

    # a log-in gives another id, at the same server; the old one is no good there

    my $was = page($n[0], $kind, $ids[0]);
    my $r = page($n[0], $kind, $ids[0], 'regenerate');
    my $id = cookie($r, $kind);

    isnt($id, $ids[0], "$kind: another id");
    is(page($n[1], $kind, $id)->body, $was->body, "$kind: at the same server");

    # what a log-out leaves as the value of the cookie is nobody's session

    page($n[0], $kind, $_, 'logout') for @ids[1, 2];
    is(page($n[1], $kind, $id)->body, $was->body, "$kind: others stay");
}

# a server that dies: its sessions begin anew at another one

my $r = $n[0]->post('/java/login', '');
my $id = cookie($r, 'java');
my ($dead) = grep { "app$_" eq $r->body } 1 .. 4;

$apps[$dead - 1]->stop;

$r = page($n[1], 'java', $id);
is($r->status, 404, 'a server dies: another one answers, and knows nothing');
$r = $n[0]->post('/java/login', '', headers => { Cookie => "JSESSIONID=$id" });
is($r->status, 200, 'a server dies: another log-in');
my $new = cookie($r, 'java');
is(page($n[1], 'java', $new)->body, $r->body, 'a server dies: and all is well');

done_testing();


sub app {
    my ($n) = @_;

    my (%ids, $count);

    return $t->origin(default => sub {
        my ($req) = @_;
        my ($kind, $what) = $req->{path} =~ m!^/(\w+)/(\w+)! or return {};
        my $cookies = ($req->{headers}{cookie} || [''])->[0];
        my ($id) = $cookies =~ /(?:^|;\s*)\Q$name{$kind}\E=([^;]+)/;
        my @h;

        if ($what eq 'login' || ($what eq 'regenerate' && $ids{$id || ''})) {
            delete $ids{$id} if defined $id;
            $id = join '', map { ('a' .. 'z', 0 .. 9)[rand 36] } 1 .. 24;
            $id = $kind eq 'java' ? "$id.n$n"
                  : $kind eq 'node' ? "s%3A$id.Ab%2BC%2Fd%3D" : $id;
            $ids{$id} = 1;
            @h = ('Set-Cookie' => 'theme=dark; Expires=Wed, 21 Oct 2026'
                                  . ' 07:28:00 GMT',
                  'Set-Cookie' => "x$name{$kind}=other; Path=/",
                  'Set-Cookie' => "$name{$kind}=$id; Path=/; HttpOnly"
                                  . '; SameSite=Lax');

        } elsif (!defined $id || !$ids{$id}) {
            return { status => 404, body => "app$n" };

        } elsif ($what eq 'logout') {
            delete $ids{$id};
            @h = ('Set-Cookie' => "$name{$kind}="
                                  . ($kind eq 'php' ? 'deleted' : '')
                                  . '; Max-Age=0; Path=/');
        }

        return { body => "app$n", headers => \@h };
    });
}
