#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_cache in a cluster: pages and their tags stand on different masters.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Cluster;
use Time::HiRes qw(sleep);

my $t = Coord->new;
my $cluster = Coord::Cluster->start($t, masters => 3);
my @servers = @{$cluster->{servers}};
my @admin = map { $_->connect } @servers;

my $n = 0;
$t->origin(default => sub {
    my ($req) = @_;
    my ($k) = $req->{uri} =~ /k=(\w+)/;

    return { headers => ['Cache-Control' => 'max-age=60', ETag => '"e"',
                         'Surrogate-Key' => "all tag$k"],
             body => "page $k " . ++$n };
});

$t->set(SEED => $servers[0]{port});

my ($a, $b) = map { $t->node(name => $_, workers => 2, http => <<'EOT')->start }
    coord_store main { mode cluster; server redis://127.0.0.1:%%SEED%%;
                       timeout 2s; connect_timeout 2s; }
    coord_cache_zone zone=pages:4m;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Cache $coord_cache_status always;
        location / { coord_cache $arg_k zone=pages lock;
                     proxy_pass http://%%ORIGIN%%; }
        location /api/ { coord_api write; }
    }
EOT
    qw(a b);

my @k = map { "k$_" } 1 .. 12;

# the number of reads that all masters have had

sub gets {
    my $sum = 0;

    for (@admin) {
        my ($gets) = $_->command(qw(INFO commandstats))
                     =~ /cmdstat_get:calls=(\d+)/;
        $sum += $gets || 0;
    }

    return $sum;
}

sub near {
    my ($k) = @_;

    return $t->wait_for(sub {
        my $before = gets();
        $b->get("/?k=$k") for 1 .. 12;
        return gets() == $before;
    }, 10);
}

my %page = map { $_ => $a->get("/?k=$_")->body } @k;

is(scalar(grep { !@{$_->command('KEYS', 'coord:ca:pages:*')} } @admin), 0,
   'each master has some');

for my $k (@k) {
    ok($t->wait_for(sub { $b->get("/?k=$k")->header('x-cache') eq 'HIT' }, 5),
       "$k: the other node has it");
    is($b->get("/?k=$k")->body, $page{$k}, 'the same');
}

ok(near($_), "$_: often asked for, no master is asked") for @k[0 .. 3];

is($a->request('DELETE', '/api/cache/pages?key=k1')->status, 200,
   'purge by key');
ok($t->wait_for(sub { $b->get('/?k=k1')->body ne $page{k1} }, 5),
   'is heard');
is($b->get('/?k=k2')->body, $page{k2}, 'of no other');

is($a->request('DELETE', '/api/cache/pages?tag=tagk2')->status, 200,
   'purge by tag');
ok($t->wait_for(sub { $b->get('/?k=k2')->body ne $page{k2} }, 5),
   'is heard');
is($b->get('/?k=k3')->body, $page{k3}, 'of no other');

is($a->request('DELETE', '/api/cache/pages?tag=all')->status, 200,
   'purge of a tag that all have');
ok($t->wait_for(sub { !grep { $b->get("/?k=$_")->body eq $page{$_} } @k }, 5),
   'is heard from the one master that has it');


# at once: what is purged by one node no other one uses, also from its memory

{
    my ($old, $near, @get) = (0, 0, map { $b->connect } 1 .. 4);
    my $post = $a->connect;

    for my $i (1 .. 100) {
        my $uri = "/?k=now$i";
        my $page;

        for (1 .. 3) {
            $page = $_->request(path => $uri)->body for @get;
        }

        my $before = gets();
        $get[0]->request(path => $uri);
        $near++ if gets() == $before;

        my $res = $i % 3 == 0 ? $post->request(path => $uri, method => 'POST',
                                               body => 'x')
                : $a->request('DELETE', '/api/cache/pages?'
                              . ($i % 3 == 1 ? "key=now$i" : "tag=tagnow$i"));
        is($res->status, 200, 'purged') if $res->status != 200;
        $old += $_->request(path => $uri)->body eq $page for @get;
    }

    is($old, 0, 'no old page in 400');
    cmp_ok($near, '>', 50, "$near were in memory");
}

done_testing();
