#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# What README, docs/ and examples/ tell a reader to paste, to run and to type
# works as it stands there, but for ports that are free here.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Events;
use Coord::Sentinel;
use Coord::TLS;
use Coord::Util qw(free_port patient slurp spew);

use JSON::PP;

my $root = "$FindBin::Bin/..";
my $t = Coord->new;
my $redis = $t->redis;
my $origin = $t->origin(routes => {
    '/payments' => { body => 'paid', status => 201 },
    '/import' => { delay => 2, body => 'imported' },
    '/capture' => { body => 'captured' },
    '/directory' => { body => 'Acme Ltd.' },
    '/api/' => sub {
        return { body => join ' ', map { $_[0]{headers}{$_}[0] }
                                   qw(x-tenant-name x-backend) };
    },
    '/upload' => { delay => 2, body => 'stored' },
    '/login' => sub { { status => $_[0]{body} =~ /password=right/ ? 200
                                                                  : 401 } },
    '/pages/a' => { body => 'page' },
    '/download/a' => { size => 150_000 },
    '/v1/chat' => sub { { body => 'text', headers =>
                          ['X-Tokens-Used' => $_[0]{args}{used} || 0] } },
    '/mcp' => { body => '{}' },
    '/send' => sub { $_[0]{args}{full}
                     ? { status => 429, headers => ['Retry-After' => 60] }
                     : { body => 'sent' } },
});
my @agents = map { $t->origin(routes => {
    '/chat/' => { body => "agent $_", headers => ["X-Agent" => "agent-$_"] },
    '/peer/' => { body => "peer $_" },
}) } 1 .. 3;

my $curl = grep { -x "$_/curl" } split /:/, $ENV{PATH};


# blocks of configuration in the documentation; what belongs into server {} or
# location {} is put there, and a server listens on a port that is free

sub whole {
    my ($block) = @_;

    return $block if $block =~ /^http \{/m;

    my %top = map { $_ => 1 } $block =~ /^(\w+)/mg;

    return "http {\n$block}\n"
        if grep { /^(coord_store|upstream|map|server|log_format)$|_zone$/ }
                keys %top;

    $block = "location / {\n$block}\n" if !$top{location};

    return "http {\n    server {\n$block}\n}\n";
}

my $blocks = 0;
my $pem = $t->dir . '/gate.pem';

system("openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=gate -days 9"
       . " -keyout $pem.key -out $pem >$pem.log 2>&1");

for my $file ("$root/README.md", glob "$root/docs/*.md") {
    my ($name) = $file =~ m{([^/]+)$};
    my $i = 0;

    for my $block (slurp($file) =~ /^```nginx\n(.*?)^```/msg) {
        my $text = whole($block);

        next if $block =~ /ssl_certificate/ && !-s $pem;

        # the files that configurations read
        my $node = $t->node(name => "doc" . ++$blocks, conf => 'http {}');
        mkdir $node->file('conf');
        spew($node->file('conf/redis.pass'), "secret\n");
        spew($node->file($_), slurp($pem)) for grep { -s $pem } 'gate.pem',
                                                                'clients.pem';
        spew($node->file('gate.key'), slurp("$pem.key")) if -s $pem;

        $text =~ s/^(\s*server \{\n)(?!.*listen)/$1 listen 127.0.0.1:8080;\n/mg;
        $text =~ s/127\.0\.0\.1:8080|(?<=listen )(?:8080|443)/127.0.0.1:%%PORT%%/g;
        $text =~ s{^load_module.*\n}{}m;

        $node->conf(conf => $text);
        my ($good, $out) = $node->check;

        ok($good, "$name, configuration " . ++$i) or diag($out);
    }
}

cmp_ok($blocks, '>=', 12, 'blocks of configuration');


# files in examples/: as they stand, with a prefix that has nothing but modules

for my $file (grep { slurp($_) =~ /^load_module/m }
              glob "$root/examples/*.conf")
{
    my ($name) = $file =~ m{([^/]+)$};
    my $dir = $t->dir . "/prefix-$name";

    mkdir "$dir$_" for '', '/modules', '/logs';
    symlink $t->module, "$dir/modules/ngx_http_coord_module.so";

    my $out = '';
    my $command = join ' ', $t->binary, '-t', '-e', 'stderr', '-p', "$dir/",
                            '-c', $file, '-g', "'pid $dir/pid;'";

    # what "nginx -t" leaves to the end of the process is no leak
    local $ENV{ASAN_OPTIONS} = 'detect_leaks=0';

    # stdout of a test may be something that cannot be opened
    $out = `$command 2>&1 | cat`;
    like($out, qr/test is successful/, "examples/$name") or diag($out);
}


# Redis with TLS, and behind sentinels

{
    my $tls = Coord::TLS->new($t->dir . '/prefix-redis_tls.conf');
    my $port = free_port();

    $tls->cert($_, san => 'DNS:redis.example.com') for qw(server client);

    my $with = eval { $t->redis($tls->redis('server', $port)) };
    my $text = slurp("$root/examples/redis_tls.conf");

    $text =~ s{^load_module.*\n}{}m;
    $text =~ s{127\.0\.0\.1:6380}{127.0.0.1:$port};
    $text =~ s{127\.0\.0\.1:8080}{127.0.0.1:%%PORT%%}g;
    $text =~ s{#(ssl_\w+\s+)redis-(\S+)\.(pem|key);}
              {"$1" . $tls->file("$2.$3") . ';'}ge;

    my $n = $t->node(name => 'redis_tls', conf => $text);

  SKIP: {
        skip 'redis-server without TLS', 1 unless $with;
        $n->start;
        ok($t->wait_for(sub { defined $n->get('/')->header('RateLimit') }, 10),
           'redis_tls.conf: a decision');
    }
}

{
    my $s = Coord::Sentinel->start($t);
    my $text = slurp("$root/examples/redis_sentinel.conf");

    $text =~ s{^load_module.*\n}{}m;
    $text =~ s{127\.0\.0\.1:8080}{127.0.0.1:%%PORT%%}g;
    $text =~ s{127\.0\.0\.1:2638(\d)|127\.0\.0\.1:26379}
              {'127.0.0.1:' . $s->{sentinels}[defined $1 ? $1 + 1 : 0]{port}}ge;

    my $n = $t->node(name => 'redis_sentinel', conf => $text)->start;

    ok($t->wait_for(sub { defined $n->get('/')->header('RateLimit') }, 10),
       'redis_sentinel.conf: a decision');
}


# one of them at work: the reader's application and Redis are those of the test

sub example {
    my ($name, $dir) = @_;
    my $text = patient(slurp("$root/examples/$name"));

    $text =~ s{^load_module.*\n}{}m;
    $text =~ s{redis://127\.0\.0\.1:6379}{%%REDIS%%}g;
    $text =~ s{127\.0\.0\.1:8080}{127.0.0.1:%%PORT%%}g;
    $text =~ s{127\.0\.0\.1:8081}{%%ORIGIN%%}g;
    $text =~ s{127\.0\.0\.1:900([123])}{'%%ORIGIN_' . ($1 + 1) . '%%'}ge;

    # a worker's stdout is nowhere
    $text =~ s{access_log /dev/stdout}{access_log %%NODEDIR%%/stdout.log};

    return $text;
}

# commands that a comment or a page tells

sub commands {
    my ($text, $n) = @_;
    my $port = $n->port;

    $text =~ s/\\\n#?\s*/ /g;
    $text =~ s/127\.0\.0\.1:8080/127.0.0.1:$port/g;

    return $text =~ /^(?:#\s+)?(curl .*)$/mg;
}

SKIP: {
    skip 'curl is missing', 3 unless $curl;

    my $n = $t->node(name => 'payments', conf => example('payments.conf'))
              ->start;
    my ($command) = commands(slurp("$root/examples/payments.conf"), $n);

    like(`$command -s`, qr{^HTTP/1\.1 201 .*^paid$}ms, 'payments: paid');
    like(`$command -s`, qr{^Idempotency-Replayed: true\r$}ms,
         'payments: not twice');
    ok($t->wait_for(sub {
        slurp($n->file('stdout.log')) =~ /201 NEW\n.*201 REPLAYED\n/
    }, 10), 'payments: the log says so');
}

{
    my $n = $t->node(name => 'conns', conf => example('limit_conn.conf'));
    my ($command) = slurp("$root/examples/limit_conn.conf")
                    =~ /^#\s+(echo .*)$/m;
    my $file = $n->file('htpasswd');

    $command =~ s{examples/htpasswd}{$file};
    is(system($command), 0, 'limit_conn: a file of passwords');
    $n->start;

    my @me = (headers => { Authorization => 'Basic bWU6c2VjcmV0' });

    is($n->get('/upload')->status, 401, 'limit_conn: a password is needed');

    my %seen;
    $seen{$_->status}++ for $n->parallel(5, '/upload', @me);
    is_deeply(\%seen, { 200 => 3, 429 => 2 }, 'limit_conn: three of five');

    my @all = $n->parallel(2, '/import', headers => { 'X-Tenant' => 'a' });
    is(join(' ', map { $_->status } @all), '200 200',
       'limit_conn: one waits for the other');
}

{
    my $n = $t->node(name => 'lock', conf => example('lock.conf'))->start;

    is($n->get('/capture?order=7')->status, 200, 'lock');
    like(join(' ', map { @{ $_->{headers}{'x-fencing-token'} } }
                       $origin->requests('/capture')),
         qr/^\d+$/, 'lock: a number goes upstream');
}

{
    my $n = $t->node(name => 'agents', conf => example('agents.conf'))->start;
    my $c = 0;

    # on a busy machine the store may be late for one

    ok($t->wait_for(sub {
           my @me = (headers => { 'X-Conversation-Id' => ++$c,
                                  'X-User' => "u$c" });
           my %seen = map { $n->get('/chat/', @me)->body => 1 } 1 .. 8;

           return keys %seen == 1;
       }, 10), 'agents: a conversation stays with its agent');
}

{
    my $r = $redis->connect;
    my $n = $t->node(name => 'tenants', conf => example('tenants.conf'))
              ->start;
    my $get = sub { $n->get('/api/', headers => { 'X-Tenant' => 'acme' }) };

    ok($t->wait_for(sub { $get->()->body eq 'Acme Ltd. green' }),
       'tenants: loaded, and the default');

    $r->command('HSET', 'tenant:acme', 'rate', '1r/h', 'backend', 'blue');
    ok($t->wait_for(sub { $get->()->body =~ /blue/ }, 5),
       'tenants: another backend');
    ok($t->wait_for(sub { $get->()->status == 429 }, 5),
       'tenants: and another rate');
    is($n->request('DELETE', '/coord/lookups/name%3Aacme')->status, 200,
       'tenants: a key is dropped');
}


# limits by what a request turns out to cost, on two nodes

{
    my ($one, $two) = map { $t->node(name => "limits$_",
                                     conf => example('limits.conf'))->start }
                          1, 2;
    my $admin = $redis->connect;

    is($one->post('/login', 'user=bob&password=right')->status, 200,
       'limits: a log-in') for 1 .. 8;

    for my $i (1 .. 5) {
        is(($i % 2 ? $one : $two)->post('/login', 'user=bob&password=x')->status,
           401, "limits: failure $i");
        $t->wait_for(sub {
            my $sum = 0;
            $sum += $_ for map { $admin->command('ZSCORE', $_, 't') }
                               grep { !/:tmp/ } @{ $admin->command('KEYS',
                                               'coord:rw:names:{bob}*') };
            $sum == $i
        }, 5);
    }

    my $r = $two->post('/login', 'user=bob&password=right');
    is($r->status, 429, 'limits: the sixth is not tried');
    is($two->post('/login', 'user=eve&password=right')->status, 200,
       'limits: another name is');
    ok($t->wait_for(sub { $admin->command('PTTL', 'coord:rh:names:{bob}')
                          > 14 * 60_000 }, 5), 'limits: locked out');

    my @page = map { my $s = $one->get('/pages/a')->status;
                     select undef, undef, undef, 0.05; $s } 1 .. 10;
    is("@page", join(' ', (200) x 10), 'limits: hits are free');

    $r = $one->get('/download/a');
    like($r->header('RateLimit-Policy'),
         qr/^"bytes";q=200000000;qu="content-bytes";w=86400$/,
         'limits: a quota of bytes');
    ok($t->wait_for(sub { $two->get('/download/a')->header('RateLimit')
                          =~ /r=199(\d+)/ && $1 < 850_001 }, 5),
       'limits: what was sent counts');

    my %key = (headers => { 'X-Api-Key' => 'k', 'X-Max-Tokens' => 6000 });

    is($one->get('/v1/chat?used=100', %key)->status, 200, 'limits: tokens');
    ok($t->wait_for(sub { $two->get('/v1/chat?used=100', %key)->status == 200 },
                    5), 'limits: what was reserved and not used is back');
    is($one->get('/v1/chat?used=9999', headers => { %{ $key{headers} },
                                       'X-Max-Tokens' => 20000 })->status,
       429, 'limits: more than there ever is');

    my $call = '{"method": "tools/call", "params": {"name": "NAME"}}';
    my @tool = map { my $n = $_; $two->post('/mcp', $call =~ s/NAME/$n/r)
                                     ->status } qw(a a a a b);
    is("@tool", '200 200 200 429 200', 'limits: calls of a tool');
}

{
    my ($one, $two) = map { $t->node(name => "egress$_",
                                     conf => example('egress.conf'))->start }
                          1, 2;

    my %seen;
    $seen{$_->status}++ for $t->parallel([map {
        ($_ % 2 ? $one : $two)->req('/send?chat_id=7') } 1 .. 30]);
    is_deeply(\%seen, { 200 => 20, 429 => 10 }, 'egress: twenty of a chat');

    is($one->get('/send?chat_id=8&full=1')->status, 429, 'egress: told so');
    ok($t->wait_for(sub { $two->get('/send?chat_id=8')->status == 429 }, 5),
       'egress: and obeyed by all');
    cmp_ok($two->get('/send?chat_id=8')->header('Retry-After'), '>', 50,
           'egress: for as long as was said');
    is($two->get('/send?chat_id=9')->status, 200, 'egress: others go on');
}

{
    my $n = $t->node(name => 'dashboard', conf => example('dashboard.conf'))
              ->start;
    my $es = Coord::Events->new($n, '/events');

    like($n->get('/')->body, qr/new EventSource/, 'dashboard: a page');
    $n->get('/shop/cart');

    my $event = $es->next || {};
    like($event->{data}, qr{^GET /shop/cart 200 \d}, 'dashboard: an event');
    like($event->{id}, qr/^\d+-\d+$/, 'dashboard: with an id');
    $es->close;
}


# the API as its page tells: configuration, then commands

SKIP: {
    skip 'curl is missing', 4 unless $curl;

    my ($block) = slurp("$root/docs/api.md") =~ /^```nginx\n(.*?)^```/ms;

    $block =~ s{127\.0\.0\.1:8080}{127.0.0.1:%%PORT%%}g;
    $block =~ s{127\.0\.0\.1:8081}{%%ORIGIN%%}g;

    my $n = $t->node(name => 'api', http => $block)->start;

    for my $page ('api.md', 'operations.md') {
        for my $command (commands(slurp("$root/docs/$page"), $n)) {
            my $json = eval { decode_json(`$command -s`) };
            is($json && $json->{zone}, 'api', "$page: $command");
        }
    }
}


# the line that installs, with another root

my ($install) = slurp("$root/README.md") =~ /^(install .*)$/m;
my $to = $t->dir . '/root';

SKIP: {
    skip 'the module is linked in', 1 unless $t->module;

    $install =~ s{(?=/usr/lib)}{$to};
    $install =~ s{build/ngx_http_coord_module\.so}{$t->module}e;
    system($install);
    ok(-f "$to/usr/lib/nginx/modules/ngx_http_coord_module.so",
       'the module is installed where no module was before');
}

done_testing();
