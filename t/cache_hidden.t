#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_cache: tags in fields that clients do not see, by proxy_hide_header and
# the like.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect(die => 1);
my $n = 0;

my $answer = sub {
    my ($req) = @_;
    my %arg = %{$req->{args}};
    my %tags = ('Surrogate-Key' => "one$arg{k} two$arg{k}",
                'Cache-Tag' => "three$arg{k}, four$arg{k}",
                'Cache-Groups' => qq{"five$arg{k}"}, 'X-Tag' => 'no');

    if ($req->{headers}{'if-none-match'}) {
        delete @tags{'Surrogate-Key', 'Cache-Tag', 'Cache-Groups'};
        $tags{'Surrogate-Key'} = "six$arg{k}" if $arg{six};
        return { status => 304, body => '',
                 headers => [ ETag => '"e"', 'Cache-Control' => 'max-age=600',
                              %tags ] };
    }

    return { headers => [ 'Cache-Control' => 'max-age=' . ($arg{life} || 600)
                                             . ', stale-while-revalidate=0',
                          ETag => '"e"', 'Content-Type' => 'text/plain',
                          $req->{method} eq 'POST'
                          ? ('Cache-Group-Invalidation' => qq{"five$arg{k}"})
                          : %tags ],
             body => 'body ' . ++$n };
};

$t->origin(default => $answer);

my $gateway = $t->gateway(protocol => 'fastcgi', default => $answer);

my $http = <<'EOT';
    coord_store main { server %%REDIS%%; timeout 20s; connect_timeout 20s; }
    coord_cache_zone zone=pages:4m;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Cache $coord_cache_status always;

        location / {
            coord_cache $arg_k zone=pages stale=1h;
            proxy_hide_header Surrogate-Key;
            proxy_hide_header Cache-Tag;
            proxy_hide_header Cache-Groups;
            proxy_hide_header Cache-Group-Invalidation;
            proxy_pass http://%%ORIGIN%%;
        }
        location /part {
            coord_cache $arg_k zone=pages stale=1h;
            proxy_hide_header Cache-Tag;
            proxy_pass http://%%ORIGIN%%;
        }
        location /fcgi {
            coord_cache $arg_k zone=pages stale=1h;
            fastcgi_hide_header Surrogate-Key;
            fastcgi_hide_header Cache-Tag;
            fastcgi_hide_header Cache-Groups;
            fastcgi_param QUERY_STRING $query_string;
            fastcgi_param REQUEST_URI $request_uri;
            fastcgi_param REQUEST_METHOD $request_method;
            fastcgi_pass %%FASTCGI%%;
        }
        location /api/ { coord_api write; }
    }
EOT

my $a = $t->node(name => 'a', workers => 2, http => $http)->start;
my $b = $t->node(name => 'b', workers => 2, http => $http)->start;

sub word { return $_[0]->get($_[1])->header('x-cache') // '-' }

sub kept {
    my ($uri, $word) = @_;

    return $t->wait_for(sub { word($b, $uri) eq 'HIT' }, 10);
}

sub purge {
    is($a->request('DELETE', "/api/cache/pages?tag=$_[0]")->status, 200,
       "purge $_[0]");
}

for my $path ('/', '/part', '/fcgi') {
    my $k = 'k' . $path =~ tr/\///dr;
    my $uri = "$path?k=$k";
    my $first = $a->get($uri);

    is($first->header('x-cache'), 'MISS', "$path: is fetched");
    is($first->header('cache-tag'), undef, 'with hidden tags');
    is($first->header('surrogate-key'),
       $path eq '/part' ? "one$k two$k" : undef, 'or seen ones');

    for my $tag (qw(one two three four five)) {
        ok(kept($uri), 'is kept');

        my $hit = $b->get($uri);
        is($hit->header('x-cache'), 'HIT', 'is used');
        is($hit->header('x-tag'), 'no', 'with its fields');
        is($hit->header('cache-tag'), undef, 'without those that are hidden');
        is($hit->header('surrogate-key'),
           $path eq '/part' ? "one$k two$k" : undef, 'but with others');

        purge("no$k");
        is(word($b, $uri), 'HIT', 'it has no such tag');
        purge("$tag$k");
        is(word($b, $uri), 'MISS', "it has the tag $tag");
    }
}

# a request that changes a group, and nobody sees which

ok(kept('/?k=k'), 'kept');
is($a->post('/other?k=k', 'x')->header('cache-group-invalidation'), undef,
   'a group that is hidden');
is(word($b, '/?k=k'), 'MISS', 'is purged');

# a 304 without tags leaves them as they are, one with others adds those

for my $six (0, 1) {
    for my $path ('/', '/part') {
        my $k = "same$six" . ($path eq '/' ? 'a' : 'b');
        my $uri = "$path?k=$k&life=1&six=$six";

        for my $tag (qw(three one six)) {
            is(word($a, $uri), 'MISS', "$uri: fetched");
            ok($t->wait_for(sub { word($a, $uri) eq 'REVALIDATED' }, 10),
               'and again');
            ok(kept($uri), 'it is the same');
            is($b->get($uri)->header('cache-tag'), undef, 'still without it');
            purge("$tag$k");

            # a field that the client sees has been replaced

            my $has = $tag eq 'three'
                      || ($tag eq 'six' ? $six : $path eq '/' || !$six);
            is(word($b, $uri), $has ? 'MISS' : 'HIT', "its tag $tag");
            $r->command('DEL', "coord:ca:pages:{$k}:r");
            $t->wait_for(sub { word($a, $uri) eq 'MISS' }, 5) if !$has;
            purge("three$k");
        }
    }
}

done_testing();
