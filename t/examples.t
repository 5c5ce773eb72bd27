#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# What README, docs/ and examples/ tell a reader to paste, to run and to type
# works as it stands there, but for ports that are free here.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Util qw(slurp spew);

use JSON::PP;

my $root = "$FindBin::Bin/..";
my $t = Coord->new;
my $redis = $t->redis;
my $origin = $t->origin(routes => {
    '/payments' => { body => 'paid', status => 201 },
    '/import' => { delay => 2, body => 'imported' },
    '/capture' => { body => 'captured' },
    '/upload' => { delay => 2, body => 'stored' },
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


# one of them at work: the reader's application and Redis are those of the test

sub example {
    my ($name, $dir) = @_;
    my $text = slurp("$root/examples/$name");

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
    my %seen;

    for (1 .. 8) {
        my $r = $n->get('/chat/', headers => { 'X-Conversation-Id' => 'c',
                                               'X-User' => 'u' });
        $seen{$r->body}++;
    }

    is(scalar keys %seen, 1, 'agents: a conversation stays with its agent');
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
