#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_sticky in front of every balancer that the nginx at hand has: a peer
# that failed is not tried again, and nothing that the balancer offers is lost.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
my @o = map { my $n = $_; $t->origin(default => sub {
    return { body => "o$n", headers => [ 'X-Sid' => $_[0]{args}{k} // '' ] };
}) } 1 .. 2;
my $dead = $t->origin(default => { body => 'dead' });
$dead->refuse;

$t->set("O$_" => $o[$_ - 1]->addr) for 1, 2;
$t->set(DEAD => $dead->addr);

my %balancer = (
    rr              => '',
    least           => 'least_conn;',
    ip              => 'ip_hash;',
    hash            => 'hash $arg_k;',
    consistent      => 'hash $arg_k consistent;',
    random          => 'random;',
    random_two      => 'random two least_conn;',
    least_time      => 'least_time header;',
    inflight        => 'least_time header inflight;',
    cookie          => 'sticky cookie route;',
    learn           => 'sticky learn create=$upstream_http_x_sid '
                       . 'lookup=$arg_k zone=l_NAME:1m;',
    learn_header    => 'sticky learn create=$upstream_http_x_sid '
                       . 'lookup=$arg_k zone=l_NAME:1m header;',
    inflight_cookie => 'least_time header inflight; sticky cookie route;',
);

my @has = grep { $t->conf_error(http => upstream($_, 'server 127.0.0.1:1;'))
                 eq '' } sort keys %balancer;
note("balancers: @has");

# what is asked of every balancer; a kind: servers, and what comes after

my %kinds = (
    fails  => [ 'server %%DEAD%% max_fails=0; server %%O1%% max_fails=0;' ],
    zone   => [ 'zone NAME 256k; server %%O1%%; server %%O2%%;' ],
    kept   => [ 'server %%O1%%; server %%O2%%;', 'keepalive 4;' ],
    backup => [ 'server %%DEAD%%; server %%O1%% backup; '
                . 'server %%O2%% backup;' ],
);

my %no_backup = map { $_ => 1 } qw(ip hash consistent random random_two);
my @up;

for my $name (@has) {
    push @up, map { [ $name, $_ ] }
              grep { $_ ne 'backup' || !$no_backup{$name} } sort keys %kinds;
}

my $http = join '', map { upstream("$_->[0]_$_->[1]", @{ $kinds{$_->[1]} }) } @up;

my $drain = $t->conf_error(http => 'upstream d { server 127.0.0.1:1 drain; }')
            eq '';
$http .= 'upstream drain { server %%O1%%; server %%O2%% drain;
                           coord_sticky $arg_peer; }' if $drain;

my $node = $t->node(http => $http, server => <<'EOT')->start;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    add_header X-Upstream $upstream_addr always;
    location ~ ^/(?<up>\w+) { proxy_pass http://$up; }
EOT

$node->allow(qr/\[warn\].*temporarily disabled/);

for (@up) {
    my ($name, $kind) = @$_;
    my $path = "/${name}_$kind";

    my @peers = $kind eq 'fails' ? ($dead->addr) : map { $_->addr } @o;
    my @r;

    for my $i (1 .. 10) {
        push @r, map { $node->get("$path?peer=$_&k=k$i") } @peers;
    }

    my $want = $kind eq 'fails' ? join(' ', ('200:o1') x 10)
                                : join(' ', ('200:o1 200:o2') x 10);

    is(join(' ', map { $_->status . ':' . $_->body } @r), $want,
       "$name, $kind: by the value");

    is($r[-1]->header('X-Upstream'), $dead->addr . ', ' . $o[0]->addr,
       "$name, $kind: each peer once") if $kind eq 'fails';

    # and without a value the balancer is as it was

    is($node->get("$path?k=new")->status, 200, "$name, $kind: no value");
    is($node->get("$path?k=new&peer=x")->status, 200, "$name, $kind: no such");
}


# a peer that is being drained keeps its sessions and gets no new ones

SKIP: {
    skip 'this nginx has no "drain"', 2 if !$drain;

    is(join(' ', map { $node->get('/drain?peer=' . $o[1]->addr)->body }
                 1 .. 4), 'o2 o2 o2 o2', 'drain: its own');
    is(join(' ', map { $node->get('/drain')->body } 1 .. 4), 'o1 o1 o1 o1',
       'drain: no new ones');
}


# what stock stickiness is told is the peer that was used

SKIP: {
    skip 'this nginx has no "sticky"', 3 if !grep { $_ eq 'cookie' } @has;

    my %route;

    for my $peer (map { $_->addr } @o) {
        my ($id) = $node->get("/cookie_zone?peer=$peer")->header('Set-Cookie')
                   =~ /route=(\w+)/;
        $route{$id} = 1;
        my %at = map { $node->get('/cookie_zone', headers =>
                          { Cookie => "route=$id" })->header('X-Upstream') => 1 }
                 1 .. 4;
        is(join(' ', keys %at), $peer, 'the route of the peer');
    }

    is(scalar keys %route, 2, 'a route a peer');
}

done_testing();


sub upstream {
    my ($name, $servers, $after) = @_;

    my ($kind) = $name =~ /^(\w+?)(?:_(?:fails|zone|kept|backup))?$/;
    my $text = "upstream $name { $balancer{$kind} $servers "
               . 'coord_sticky $arg_peer; ' . ($after // '') . " }\n";

    $text =~ s/NAME/$name/g;

    return $text;
}
