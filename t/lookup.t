#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_lookup: strings and fields, chains, one round trip, what is no good,
# the last value while Redis is away, one fetch for many.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;

my $http = <<'EOF';
    coord_store main { server %%REDIS%%; timeout 2s; connect_timeout 5s;
                       breaker failures=50 cooldown=100ms; }

    coord_lookup $rate rate:$arg_t default=100000r/s;
    coord_lookup $number number:$arg_n default=7 ttl=300ms negative_ttl=200ms;
    coord_lookup $plain plain:$arg_k zone=other:1m;
    coord_lookup $color thing:$arg_k field=color zone=other default=grey;
    coord_lookup $shape thing:$arg_k field=shape zone=other;

    # user -> plan -> rate

    coord_lookup $plan user:$arg_u field=plan default=free;
    coord_lookup $planrate plan:$plan field=rate default=1r/m;
    map $planrate $mapped { default $planrate; }

    coord_lookup $backend route:$arg_b default=no;

    # where a request ends before anything could wait

    coord_lookup $closed closed default=no;

    # of a body: known when it has been read

    coord_lookup $said said:$request_body default=nothing;

    coord_limit_req_zone $arg_t zone=t:1m rate=$rate;
    coord_limit_req_zone $arg_n zone=n:1m rate=${number}r/m;
    coord_limit_req_zone $arg_u zone=u:1m rate=$mapped;
    coord_limit_req_zone $request_body zone=b:1m rate=100r/s;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Values "$plain|$color|$shape" always;
        add_header X-Plan "$plan|$planrate" always;

        location = /t { coord_limit_req zone=t burst=5 nodelay; empty_gif; }
        location = /n { coord_limit_req zone=n; empty_gif; }
        location = /u { coord_limit_req zone=u; empty_gif; }
        location = /v { empty_gif; }
        location = /ret { return 200 "$plain"; }
        location = /route { proxy_pass http://%%ORIGIN%%/$backend; }
        location = /status { coord_status; }

        location = /said {
            coord_limit_req zone=b burst=9 nodelay after_body;
            add_header X-Said $said always;
            proxy_pass http://%%ORIGIN%%/no;
        }
    }

    server {
        listen 127.0.0.1:%%PORT_2%%;
        if ($closed = yes) { return 503; }
        location / { return 200 open; }
    }
EOF

my $origin = $t->origin(routes => {
    '/blue' => { body => 'blue' }, '/no' => { body => 'no' },
});

my $a = $t->node(name => 'a', workers => 2, http => $http)->start;

# strings and fields, present and absent

$r->command('SET', 'plain:x', 'a value');
$r->command('HSET', 'thing:x', 'color', 'red', 'shape', '');

is($a->get('/v?k=x')->header('x-values'), 'a value|red|',
   'a string, a field, an empty field');
is($a->get('/v?k=none')->header('x-values'), '|grey|',
   'nothing: the default, or nothing');
is($a->get('/v')->header('x-values'), '|grey|', 'keys that end nowhere');

# the content is chosen by a look-up

$r->command('SET', 'route:1', 'blue');
is($a->get('/route?b=1')->body, 'blue', 'proxy_pass to what was looked up');
is($a->get('/route?b=2')->body, 'no', 'and to the default');

# a rate

$r->command('SET', 'rate:one', '1r/h');
is(join(' ', map { $a->get('/t?t=one')->status } 1 .. 8),
   '200 200 200 200 200 200 429 429', 'the first request knows the rate');
# a burst of so high a rate is over within the error of a clock

is(join(' ', map { $a->get('/t?t=two')->header('RateLimit-Policy') } 1 .. 8),
   join(' ', ('"t";q=100000;w=1') x 8), 'another one has the default');

# a chain, through a map

$r->command('HSET', 'user:ann', 'plan', 'gold');
$r->command('HSET', 'plan:gold', 'rate', '1000r/s');
$r->command('HSET', 'plan:free', 'rate', '1r/h');

my $res = $a->get('/u?u=ann');
is($res->header('x-plan'), 'gold|1000r/s', 'a look-up of a look-up');
is($res->status, 200, 'admitted');
sleep 0.01;
is($a->get('/u?u=ann')->status, 200, 'by the rate of its plan');

is($a->get('/u?u=bob')->header('x-plan'), 'free|1r/h',
   'the default names the next key');
is($a->get('/u?u=bob')->status, 429, 'and that rate holds');

# "if" and "return": nobody waits, the next one has it

for my $value ('first', 'second') {
    $r->command('SET', 'plain:early', $value);
    ok($t->wait_for(sub { $a->get('/ret?k=early')->body eq $value }, 5),
       "\"return\" with the $value value");
}

for my $closed (qw(yes no yes)) {
    $r->command('SET', 'closed', $closed);
    ok($t->wait_for(sub { $a->get('/', port => $a->port(2))->status
                          == ($closed eq 'yes' ? 503 : 200) }, 5),
       "a server that is closed by a look-up: $closed");
}

# where nothing else is asked for

$r->command('HSET', 'user:eve', 'plan', 'gold');

is($a->get('/v?u=eve')->header('x-plan'), 'gold|1000r/s',
   'the first key is fetched before the next one is known');
is($a->get('/v?u=eve')->header('x-plan'), 'gold|1000r/s', 'and kept');

# a key of the body

$r->command('SET', 'said:yes', 'no');

is($a->request('POST', '/said', body => 'yes')->header('x-said'), 'no',
   'a look-up of the body');
is($a->request('POST', '/said', body => 'yes')->header('x-said'), 'no',
   'of another one, from memory');

# values that are no good: told once a second, the default counts

$r->command('SET', 'number:text', 'many');
$r->command('SET', 'number:line', "5\r\nX-Evil: 1");
$r->command('SET', 'number:large', 'x' x (10 * 1024 * 1024));
$r->command('LPUSH', 'number:list', 1);
$r->command('SET', 'number:five', '5');

is($a->get('/n?n=five')->status, 200, 'a number');
is($a->get("/n?n=$_")->status, 200, "$_: goes on")
    for qw(line large list text);
is($a->get('/n?n=line')->status, 429, 'the limit by the default holds');

ok($a->wait_log(qr/the value of "number:line" is not used, it is no text/, 3),
   'it is told');
is($a->get('/n?n=none')->status, 200, 'the worker lives');
ok(!$a->log_lines(qr/^X-Evil: 1/), 'no line end of a value in the log');

# many at once ask once (two workers: twice at most)

$r->command('SET', 'plain:hot', 'hot');
$r->command('HSET', 'thing:hot', 'color', 'red', 'shape', 'o');
$a->get('/v') for 1 .. 4;
$r->command('CONFIG', 'RESETSTAT');
my @all = $a->parallel(100, '/v?k=hot');
is(scalar(grep { $_->header('x-values') eq 'hot|red|o' } @all), 100,
   'all have the values');

my ($calls) = $r->command('INFO', 'commandstats')
              =~ /cmdstat_hget:calls=(\d+)/;
ok($calls <= 4, 'each is asked for once by a worker') or diag($calls);

# cached: not asked again

$r->command('CONFIG', 'RESETSTAT');
$a->get('/v?k=hot') for 1 .. 10;
unlike($r->command('INFO', 'commandstats'), qr/cmdstat_hget:/,
       'what is cached is not asked for');

# counted

like($a->get('/status?format=prometheus')->body,
     qr/coord_decisions_total\{feature="lookup",zone="other",outcome="hit"\} \d/,
     'hits are counted');

# Redis away: the last value past its ttl, else the default

$r->command('SET', 'number:old', '5');
is($a->get('/n?n=old')->status, 200, 'read');
$redis->stop('KILL');
sleep 0.5;

is($a->get('/v?k=hot')->header('x-values'), 'hot|red|o',
   'Redis away: the last values');
is($a->get('/v?k=new')->header('x-values'), '|grey|', 'else the default');
ok($a->wait_log(qr/no answer for look-up/, 5), 'told');

# a reload in another order: a field is not taken for another one

(my $swapped = $http) =~ s/^(.*field=color.*\n)(.*field=shape.*\n)/$2$1/m;
isnt($swapped, $http, 'in another order');
my @old = $a->conf(http => $swapped)->reload;
ok($a->wait_gone(20, @old), 'the workers are new');
is($a->get('/v?k=hot')->header('x-values'), 'hot|grey|',
   'the last value of a field is that of this field');
@old = $a->conf(http => $http)->reload;
ok($a->wait_gone(20, @old), 'in the old order again');
is($a->get('/v?k=hot')->header('x-values'), 'hot|red|o', 'as before');

$redis->run;
ok($t->wait_for(sub {
       $redis->connect->command('SET', 'plain:hot', 'new');
       ($a->get('/v?k=hot')->header('x-values') || '') =~ /^new/;
   }, 15), 'Redis is back');

# keys of texts and variables, of captures, and of many parts

$redis->connect->command('MSET', 'm:GET:1::end', 'joined', '1', 'alone',
                          'm1', 'last', 'm:cap:1', 'captured', '1.2.1.2.1',
                          'many', 'constant', 'always');

my $keys = $t->node(name => 'keys', http => <<'EOF')->start;
    coord_store main { server %%REDIS%%; timeout 2s; }

    coord_lookup $joined m:$request_method:$arg_a:$arg_none:end default=-;
    coord_lookup $alone $arg_a default=-;
    coord_lookup $last m$arg_a default=-;
    coord_lookup $captured m:$1:$arg_a default=-;
    coord_lookup $many $arg_a.$arg_b.$arg_a.$arg_b.$arg_a default=-;
    coord_lookup $constant constant default=-;

    server {
        listen 127.0.0.1:%%PORT%%;

        location ~ ^/v/(.*)$ {
            add_header X-Values
                       "$joined|$alone|$last|$captured|$many|$constant";
            empty_gif;
        }
    }
EOF

is($keys->get('/v/cap?a=1&b=2')->header('x-values'),
   'joined|alone|last|captured|many|always', 'keys of several parts')
    for 1, 2;
is($keys->get('/v/none')->header('x-values'), '-|-|-|-|-|always',
   'and of parts that are empty');

# the configuration

sub error { $t->conf_error(http => "$_[0]\n server { listen 127.0.0.1:1; }") }

like(error('coord_lookup name key;'), qr/invalid variable name "name"/,
     'a variable');
like(error('coord_lookup $a key bad=1;'), qr/invalid parameter "bad=1"/,
     'parameters');
like(error('coord_lookup $a key ttl=0;'), qr/invalid value "ttl=0"/, 'a ttl');
like(error('coord_lookup $a k store=none;'), qr/unknown store "none"/,
     'a store');
like(error('coord_lookup $a k; coord_lookup $a j;'),
     qr/duplicate "a" variable/, 'one of a name');
is(error('coord_lookup $a k; coord_lookup $b k zone=z:64k;'
         . 'coord_lookup $c k field=f zone=z;'), '', 'all is good');

$a->allow(qr/coord redis/);

done_testing();
