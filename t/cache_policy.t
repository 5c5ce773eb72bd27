#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_cache: what an origin says of its response: fields for caches in front
# of it (RFC 9213).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Pages;
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;

# the arguments of a path tell what the origin answers; the key has none

my $origin = $t->origin(default => \&answered);

my $http = <<'EOT';
    coord_store main { server %%REDIS%%; timeout 2s; }
    coord_cache_zone zone=pages:4m;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Cache $coord_cache_status always;

        location / {
            coord_cache $uri zone=pages valid=60s;
            proxy_pass http://%%ORIGIN%%;
        }
    }
EOT

my $a = $t->node(name => 'a', workers => 2, http => $http)->start;
my $b = $t->node(name => 'b', workers => 2, http => $http)->start;

my ($n, $last) = (0);

sub word { return $_[0]->get(@_[1 .. $#_])->header('x-cache') // '' }

sub is_stored {
    my ($path) = $_[0] =~ /^([^?]*)/;

    return $t->wait_for(sub { $r->command('EXISTS', "coord:ca:pages:{$path}:r") });
}

# what the other node says of a response with these fields

sub kept {
    my ($fields, $name, %is) = @_;

    $last = '/k' . $n++ . answer($fields, %is);
    $a->get($last);
    is_stored($last);
    is(word($b, $last), 'HIT', $name);
}

sub passed {
    my ($fields, $name, %is) = @_;

    $last = '/k' . $n++ . answer($fields, %is);
    $a->get($last);
    $t->rest(0.1);
    is(word($b, $last), 'MISS', $name);
}


# --- CDN-Cache-Control ---

my @no = ('Cache-Control' => 'no-store');
my @life = ('Cache-Control' => 'max-age=60');

sub cdn { return ('CDN-Cache-Control' => $_[0]) }

for ('max-age=60', 'foo, max-age=60', 'max-age=60;x="y", foo=(a b)',
     'max-age=0, max-age=60', 's-maxage=60, max-age=0', 'none',
     'max-age=999999999999999', "  max-age=60  ")
{
    kept([@no, cdn($_)], "$_ goes before Cache-Control");
}

for ('max-age=0', 'no-store', 'no-cache', 'private', 'private, max-age=60',
     'max-age=60, s-maxage=0', 'max-age=60, max-age=0')
{
    passed([@life, Expires => date(60), cdn($_)], "$_ goes before it, too");
}

kept([Expires => date(-60), cdn('max-age=60')], 'and before Expires');
passed([Expires => date(60), cdn('max-age=0')], 'in both directions');
passed([Expires => date(60), cdn('none')], 'which tells no life, either', status => 404);
passed([@life, cdn('none')], 'nor does Cache-Control', status => 404);
passed([cdn('max-age=60'), Age => 90], 'it is older than that');

kept([@no, cdn('foo'), cdn('max-age=60')], 'several lines are one');
passed([@no, cdn('max-age=60,'), cdn('')], 'and that has to be one');

# what is none is not there at all

for ('', ' ', 'max-age=60,', 'max-age=60, &', 'Max-Age=60', 'max-age =60',
     'max-age= 60', 'max-age="60"', 'max-age=60.0', 'max-age=-1', 'max-age',
     'max-age=60, no-store=?0', 'max-age=60, public="x"', 'max-age=60 foo')
{
    passed([@no, cdn($_)], "\"$_\" does not count");
    kept([@life, cdn($_)], 'whatever Cache-Control says');
}

is($b->get($last)->header('cdn-cache-control'), 'max-age=60 foo',
   'it is passed on');

my %user = (headers => [Authorization => 'Bearer one']);

for (['max-age=60', 'MISS'], ['max-age=60, public', 'HIT'],
     ['max-age=60, must-revalidate', 'HIT'], ['s-maxage=60', 'HIT'])
{
    my $uri = '/auth' . $n++ . answer(['Cache-Control' => 'public, max-age=60',
                                       cdn($_->[0])]);
    $a->get($uri, %user);
    $t->rest(0.3);
    is(word($b, $uri, %user), $_->[1], "$_->[0] with Authorization: $_->[1]");
}

done_testing();
