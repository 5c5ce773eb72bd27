#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_cache: what an origin says of its response: fields for caches in front
# of it (RFC 9213) and for nginx, how long it may be used stale (RFC 5861), what
# has to be revalidated at each use.

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
my $watch = $redis->watch;

# the arguments of a path tell what the origin answers; the key has none

my $origin = $t->origin(default => \&answered);

my $http = <<'EOT';
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_cache_zone zone=pages:4m;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Cache $coord_cache_status always;

        location / {
            coord_cache $uri zone=pages valid=60s;
            proxy_pass http://%%ORIGIN%%;
        }
        location /stale {
            coord_cache $uri zone=pages valid=60s stale=60s;
            proxy_pass http://%%ORIGIN%%;
        }
        location /lock {
            coord_cache $uri zone=pages valid=60s lock;
            proxy_pass http://%%ORIGIN%%;
        }
        location /ignore {
            coord_cache $uri zone=pages valid=60s;
            proxy_ignore_headers Cache-Control Expires Set-Cookie Vary
                                 X-Accel-Expires;
            proxy_pass http://%%ORIGIN%%;
        }
        location /brief {
            coord_cache $uri zone=pages valid=4s;
            proxy_pass http://%%ORIGIN%%;
        }
    }
EOT

my $a = $t->node(name => 'a', workers => 2, http => $http)->start;
my $b = $t->node(name => 'b', workers => 2, http => $http)->start;

my @no = ('Cache-Control' => 'no-store');
my @life = ('Cache-Control' => 'max-age=60');
my @tag = (ETag => '"e"');

sub cdn { return ('CDN-Cache-Control' => $_[0]) }
sub accel { return ('X-Accel-Expires' => $_[0]) }

my ($n, $last) = (0);

sub word { return $_[0]->get(@_[1 .. $#_])->header('x-cache') // '' }

sub is_stored {
    my ($path) = $_[0] =~ /^([^?]*)/;

    return $t->wait_for(sub { $r->command('EXISTS', "coord:ca:pages:{$path}:r") });
}

# what the other node says of a response with these fields: asked() asks for all
# of them at once

my @asked;

sub kept { ask('HIT', @_) }
sub passed { ask('MISS', @_) }

sub ask {
    my ($word, $fields, $name, %is) = @_;

    $last = '/k' . $n++ . answer($fields, %is);
    push @asked, [$word, $last, $name];
}

sub asked {
    $t->parallel([map { $a->req($_->[1]) } @asked]);
    is_stored($_->[1]) for grep { $_->[0] eq 'HIT' } @asked;
    $t->rest(0.1);
    is(word($b, $_->[1]), $_->[0], $_->[2]) for splice @asked;
}


# --- CDN-Cache-Control ---

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

asked();
is($b->get($last)->header('cdn-cache-control'), 'max-age=60 foo',
   'it is passed on');

my %user = (headers => [Authorization => 'Bearer one']);

my @user = map { [@$_, '/auth' . $n++
                       . answer(['Cache-Control' => 'public, max-age=60',
                                 cdn($_->[0])])] }
    ['max-age=60', 'MISS'], ['max-age=60, public', 'HIT'],
    ['max-age=60, must-revalidate', 'HIT'], ['s-maxage=60', 'HIT'];

$t->parallel([map { $a->req($_->[2], %user) } @user]);
is_stored($_->[2]) for grep { $_->[1] eq 'HIT' } @user;
$t->rest(0.3);
is(word($b, $_->[2], %user), $_->[1], "$_->[0] with Authorization: $_->[1]")
    for @user;


# --- RFC 5861: beside stale= ---

# what one request sees while another one asks the origin, and what it sees in
# place of an error, when the response is no longer fresh

my @stale;

sub stale {
    my ($where, $control, %is) = @_;

    push @stale, { %is, where => $where, control => $control,
                   path => "/$where" . $n++,
                   fields => ['Cache-Control' => $control,
                              @{$is{fields} || []}] };
}

sub ask_stale {
    my ($is) = @_;
    my $path = $is->{path};

    my $c = $a->connect;
    my $seen = $origin->count($path);
    $c->send("GET $path" . answer([@no], hold => 1, status => 503)
             . " HTTP/1.1\r\nHost: x\r\n\r\n");
    $t->wait_for(sub { $origin->count($path) > $seen });
    my $while = word($b, $path . answer([@no], status => 404));
    $origin->release($path);
    my $res = $c->response;

    is($while, $is->{while}, "$is->{where}, $is->{control}: while one asks the"
                             . ' origin');
    is($res->status . ' ' . $res->header('x-cache'), $is->{error}, 'an error');
}

my @error = (error => '200 STALE');
my @failed = (error => '503 EXPIRED');

stale('no', 'max-age=1, stale-if-error=60', while => 'EXPIRED', @error);
stale('no', 'max-age=1, stale-while-revalidate=60', while => 'UPDATING', @error);
stale('no', 'max-age=1, stale-while-revalidate=60, stale-if-error=60',
      while => 'UPDATING', @error);
stale('no', 'max-age=0, stale-while-revalidate=60, stale-if-error=60',
      while => 'UPDATING', @error);
stale('no', 'max-age=1, stale-while-revalidate=60', while => 'UPDATING', @error,
      fields => [@tag]);
stale('no', 'max-age=1', while => 'UPDATING', @error, fields =>
      [cdn('max-age=1, stale-while-revalidate=60, stale-if-error=60')]);
stale('no', 'max-age=1, stale-while-revalidate=1', while => 'MISS',
      error => '503 MISS', after => 2);

# its word goes before that of the configuration, for each of them

stale('stale', 'max-age=1', while => 'UPDATING', @error);
stale('stale', 'max-age=1, stale-while-revalidate=0', while => 'EXPIRED', @error);
stale('stale', 'max-age=1, stale-if-error=0', while => 'UPDATING', @failed);
stale('stale', 'max-age=1, stale-while-revalidate=0, stale-if-error=0',
      while => 'MISS', error => '503 MISS');
stale('stale', 'max-age=1, stale-if-error=1', while => 'UPDATING', @failed,
      after => 2);
stale('stale', 'max-age=0', while => 'MISS', error => '503 MISS');

# and what must not be used stale is not

stale('stale', "max-age=1, stale-while-revalidate=60, stale-if-error=60, $_",
      while => 'MISS', error => '503 MISS')
    for qw(must-revalidate proxy-revalidate s-maxage=1);
stale('stale', "max-age=1, stale-while-revalidate=60, stale-if-error=60, no-cache",
      while => 'MISS', error => '503 MISS', fields => [@tag]);

# X-Accel-Expires tells when it is stale only

stale('no', 'max-age=60, stale-while-revalidate=60', while => 'UPDATING', @error,
      fields => [accel(1)]);

# what is kept for as long as its life, and is in nobody's way

my $brief = '/brief' . answer(['Cache-Control' => 'no-cache', @tag], same => 1);

# with fields that are not for others; without the word on stale ones

my $own = '/stale' . $n++ . answer(['Cache-Control' => 'no-cache="X-One", max-age=1',
                                    'X-One' => 1, @tag], same => 1);
my $accel = '/stale' . $n++ . answer(['Cache-Control' => 'stale-if-error=0',
                                      accel(1)]);

# all of them grow old at once: those that are not kept for longer come first

my @brief = grep { $_->{while} eq 'MISS' } @stale;
my @long = grep { $_->{while} ne 'MISS' } @stale;

$t->parallel([map { $a->req($_) }
              map({ $_->{path} . answer($_->{fields}) } @brief, @long),
              $brief, $own, $accel]);
is_stored($_) for map({ $_->{path} } @long), $brief, $own, $accel;

my $filled = time;
my $used;

for my $turn (1 .. 4) {
    sleep 0.05 while time < $filled + 1.4 * $turn;
    is(word($b, $brief), 'REVALIDATED', 'it lives on by its use');

    for (grep { $turn == ($_->{after} ? 2 : 1) } @stale) {
        ask_stale($_);
        word($b, $brief);
    }

    $used = time;
}


# --- no-cache ---

for (['ETag', '"e"', 'if-none-match'],
     ['Last-Modified', date(-100), 'if-modified-since'])
{
    my ($name, $value, $if) = @$_;
    my $uri = '/nc' . $n++ . answer(['Cache-Control' => 'no-cache',
                                     $name => $value], same => 1);

    my $first = $a->get($uri);
    is($first->header('x-cache'), 'MISS', "no-cache with $name");
    is_stored($uri);
    my $res = $b->get($uri);
    is($res->header('x-cache'), 'REVALIDATED', 'it is revalidated');
    is($res->status, 200, 'and sent');
    is($res->header('x-seen'), $if, 'by a condition');
    is($res->body, 'body', 'its body');
    isnt($res->header('x-number'), $first->header('x-number'),
         'with the fields of the 304');
    is(word($a, $uri), 'REVALIDATED', 'at each use');
    is($b->get($uri, headers => [$name eq 'ETag' ? ('If-None-Match' => '"e"')
                                 : ('If-Modified-Since' => $value)])->status,
       304, 'also for who has it');
    is($b->get($uri, headers => ['Cache-Control' => 'only-if-cached'])->status,
       504, 'not without its origin');
    is(word($b, $uri =~ s/&same=1//r), 'MISS', 'another one takes its place');
}

passed(['Cache-Control' => 'no-cache'], 'without a validator it is not kept');
asked();
is($b->get($last)->header('x-seen'), '', 'nor asked for with a condition');
passed(['Cache-Control' => 'no-cache', @tag], '404 with no-cache',
       status => 404, same => 1);
passed(['Cache-Control' => 'no-cache, no-store', @tag], 'with no-store',
       same => 1);
asked();

my $uri = '/k' . $n++ . answer([@life, @tag, cdn('no-cache')], same => 1);
$a->get($uri);
is_stored($uri);
is(word($b, $uri), 'REVALIDATED', 'in CDN-Cache-Control, too');

$uri = '/lock' . answer(['Cache-Control' => 'no-cache', @tag], same => 1,
                        delay => 1);
$a->get($uri);
is_stored($uri);
my $begun = $t->ran;
is_deeply([map { $_->header('x-cache') } $t->parallel([map { $_->req($uri) }
                                                       ($a, $b) x 4])],
          [('REVALIDATED') x 8], 'with lock all revalidate it');
cmp_ok($t->ran - $begun, '<', 4, 'at once');


# --- fields that are not for others ---

for my $word (qw(no-cache private)) {
    kept(['Cache-Control' => qq{$word="X-One, X-two", max-age=60}, 'X-One' => 1,
          'X-Two' => 2, 'X-Three' => 3], "$word with names");
    my $named = $last;
    kept(['Cache-Control' => "$word=Set-Cookie", 'Set-Cookie' => 'a=b', @life],
         "$word=Set-Cookie");
    my $cookie = $last;
    kept([cdn(qq{$word="x-one", max-age=60}), 'X-One' => 1], 'a targeted one');
    my $targeted = $last;
    passed(['Cache-Control' => qq{$word="Vary", max-age=60}, Vary => 'X'],
           "$word=\"Vary\" stands for $word");
    passed(['Cache-Control' => qq{$word="a", $word, max-age=60}],
           "$word goes before it");
    passed(['Cache-Control' => qq{$word="a", $word=b, $word=c, $word=d, $word=e}],
           'too many of them');
    asked();

    my $res = $b->get($named);
    is_deeply([map { scalar $res->header($_) } qw(X-One X-Two X-Three)],
              [undef, undef, 3], 'others do not have them');
    is($a->get($named =~ s/k/l/r)->header('x-one'), 1, 'who has asked has');
    is($b->get($cookie)->header('set-cookie'), undef, 'it is nobody else\'s');
    is($b->get($targeted)->header('x-one'), undef, 'the same');
}
passed(['Cache-Control' => 'no-cache="x"', 'Set-Cookie' => 'a=b', @life],
       'Set-Cookie that is not among them');
asked();

my $res = $watch->after(sub { $b->get($own) }, 'set', qr/^coord:ca:.*:r$/);
is($res->header('x-cache'), 'REVALIDATED', 'when it is revalidated');
is($res->header('x-one'), 1, 'a field of that 304 is sent');
is($a->get($own)->header('x-one'), undef, 'and not stored');


# --- X-Accel-Expires, and what is not to be looked at ---

kept([@no, cdn('no-store'), Expires => date(-60), accel(60)],
     'X-Accel-Expires goes before all');
asked();
is($b->get($last)->header('x-accel-expires'), undef, 'it is for nginx only');
kept([@no, accel('@' . int(time + 60))], 'a time');
passed([@life, accel('@' . int(time - 60))], 'a time that is over');
passed([@life, accel(0)], '0: it is not kept');
passed([accel(60), Age => 90], 'Age counts');
kept([accel(60), Date => date(-90)], 'Date does not, as in proxy_cache');
kept([accel(60), accel(0)], 'the first one of several');
passed([@no, accel('x')], 'what is no number is not there');
kept([accel(60)], 'whatever the status', status => 404);
passed([accel(60), 'Set-Cookie' => 'a=b'], 'Set-Cookie counts');
asked();

is($b->get($accel =~ s/\?.*//r . answer([], status => 503))->status, 503,
   'and what is said of stale ones');

my @ignored = map { [$_->[0], '/ignore' . $n++ . answer($_)] }
    [@no], [cdn('no-store')], [Expires => date(-60)], ['Set-Cookie' => 'a=b'],
    [Vary => '*'], [accel(0)];

$t->parallel([map { $a->req($_->[1]) } @ignored]);

for (@ignored) {
    my ($name, $uri) = @$_;

    is_stored($uri);
    my $res = $b->get($uri);
    is($res->header('x-cache'), 'HIT', "proxy_ignore_headers: $name");
    is($res->header('set-cookie'), undef, 'a cookie goes to one client');
}

$last = '/ignore' . $n++ . answer([Vary => 'X-One']);
$a->get($last, headers => ['X-One' => 1]);
is_stored($last);
is(word($b, $last, headers => ['X-One' => $_]), 'HIT', 'one for all') for 1, 2;


# --- a record of another version of the module ---

$uri = '/k' . $n++ . answer([@life]);
$a->get($uri);
is_stored($uri);
my ($key) = map { "coord:ca:pages:{$_}:r" } $uri =~ /^([^?]*)/;
my $blob = $r->command('GET', $key);
like($blob, qr/^cca3/, 'its version');
$r->command('SET', $key, 'cca2' . substr($blob, 4));
is($watch->after(sub { word($b, $uri) }, 'set', qr/^coord:ca:.*:r$/), 'MISS',
   'another one is not used');
unlike($b->log, qr/is damaged/, 'nor is it damaged');
is(word($b, $uri), 'HIT', 'until it is stored anew');


# --- what has lived on by its use ---

sleep 0.05 while time < $used + 5.2;
is(word($b, $brief), 'MISS', 'ends without');

done_testing();
