#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# examples/mcp.conf on two nodes: clients of MCP servers of both generations.
# TEST_NPM=1 installs the SDKs for Node.js into build/npm and asks their servers
# and clients as well; MCP_SDK names a directory that has them in node_modules.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Util qw(slurp spew);
use IO::Socket::INET;

my $t = Coord->new;
my $redis = $t->redis;
my @servers = map { server($_) } 1 .. 3;

my ($a, $b) = map { $t->node(name => $_, conf => example(
                                 map { $_->addr } @servers))->start } 'a', 'b';


# with sessions: initialize, the notification behind it, calls, a stream

my ($wrong, %at) = (0);

for my $i (1 .. 20) {
    my $r = (($a, $b)[$i % 2])->post('/mcp', '{"method":"initialize"}');
    my $id = $r->header('Mcp-Session-Id');
    my %h = (headers => { 'Mcp-Session-Id' => $id });

    $at{$r->body}++;

    my @r = $t->parallel([
        (map { $_->req('/mcp', %h, method => 'POST', body => '{}') }
             $a, $b, $b), $b->req('/mcp', %h),
        $a->req('/mcp', %h, method => 'DELETE') ]);
    $wrong += grep { $_->status != 200 || $_->body ne $r->body } @r;
}

is($wrong, 0, 'sessions: 100 requests, none at the wrong server');
is(scalar keys %at, 3, 'sessions: balanced');
is($a->post('/mcp', '{}', headers => { 'Mcp-Session-Id' => 'made-up' })
   ->status, 404, 'sessions: made up, begin anew');


# without: any server, and a tool so often

my @call = (headers => { 'Mcp-Method' => 'tools/call', 'Mcp-Name' => 'search',
                         Authorization => 'Bearer one' });
my %seen;

$seen{$_->status}++ for $t->parallel([ map { (($a, $b)[$_ % 2])->req('/mcp',
    @call, method => 'POST', body => '{}') } 1 .. 30 ]);
cmp_ok($seen{200}, '>=', 21, 'without: as many calls as the limit says')
    or diag(join ' ', %seen);
cmp_ok($seen{429} || 0, '>=', 5, 'without: and no more, on both nodes')
    or diag(join ' ', %seen);
is($b->post('/mcp', '{}', headers => { 'Mcp-Name' => 'search',
                                       Authorization => 'Bearer two' })
   ->status, 200, 'without: another user');
is($b->post('/mcp', '{}', headers => { 'Mcp-Name' => 'fetch',
                                       Authorization => 'Bearer one' })
   ->status, 200, 'without: another tool');

# a name in base64 is the same name, and no way around the limit

sub statuses {
    my ($user, @names) = @_;
    my %n;

    $n{$_->status}++ for $t->parallel([ map { (($a, $b)[rand 2])->req('/mcp',
        method => 'POST', body => '{}', headers => {
            'Mcp-Name' => $_, Authorization => "Bearer $user" }) } @names ]);

    return \%n;
}

my $n = statuses('three', ('search') x 20, ('=?base64?c2VhcmNo?=') x 15);
cmp_ok($n->{429} || 0, '>=', 10, 'base64: a name that is known, one limit')
    or diag(join ' ', %$n);

$n = statuses('four', map { "=?base64?$_?=" } map { ($_) x 5 }
              qw(Zm8= Zm9v Zm9vYg== w6Q= ZmV0Y2g= 5LiW55WM YQ==));
cmp_ok($n->{429} || 0, '>=', 10, 'base64: other names, one limit for a user')
    or diag(join ' ', %$n);
is($b->post('/mcp', '{}', headers => { 'Mcp-Name' => '=?base64?Zm8=?=',
                                       Authorization => 'Bearer five' })
   ->status, 200, 'base64: another user');


# the SDKs: of the first generation, and of both

my $sdk = $ENV{MCP_SDK} || "$FindBin::Bin/../build/npm";
my ($node) = grep { -x } map { "$_/node" } split /:/, $ENV{PATH};

if ($ENV{TEST_NPM} && !$ENV{MCP_SDK}) {
    system("mkdir -p $sdk && cd $sdk && npm install --no-audit --no-fund "
           . join(' ', 'express', 'zod', map { "\@modelcontextprotocol/$_" }
                                             'sdk', 'client', 'server', 'node')
           . ' >/dev/null 2>&1') == 0
        or diag('npm install has failed');
}

sub without {
    return $node && ($ENV{TEST_NPM} || $ENV{MCP_SDK})
           && -d "$sdk/node_modules/\@modelcontextprotocol/$_[0]" ? ''
           : "neither TEST_NPM nor MCP_SDK has \@modelcontextprotocol/$_[0]";
}

SKIP: {
    my $why = without('sdk');
    skip $why, 2 if $why;

    my $out = talk('one', sdk_server($sdk), sdk_client($sdk));
    my %n = map { $_ => 1 } $out =~ /^call (\d+)$/mg;

    is(scalar(() = $out =~ /^call \d+$/mg), 40,
       'SDK: 10 clients, 4 calls each over both nodes') or diag($out);
    cmp_ok(scalar keys %n, '>=', 2, 'SDK: at several servers');
}

SKIP: {
    my $why = without('server');
    skip $why, 5 if $why;

    my $out = talk('two', server_without_sessions($sdk),
                   client_without_sessions($sdk));
    my %n;

    $n{$1}++ while $out =~ /^(\w+ \w+ (?:\d+|\w+))$/mg;

    my $passed = () = $out =~ /^me search \d+$/mg;

    like($out, qr/^me 2026-07-28 without$/m, 'SDK: a protocol without sessions')
        or diag($out);
    cmp_ok($passed, '>=', 21, 'SDK: as many calls as the limit says');
    cmp_ok($n{'me search refused'} || 0, '>=', 5, 'SDK: and no more')
        or diag($out);
    like($out, qr/^me fetch \d+$/m, 'SDK: another tool');
    like($out, qr/^you search \d+$/m, 'SDK: another user');
}

done_testing();


sub example {
    my @addr = @_;
    my $text = slurp("$FindBin::Bin/../examples/mcp.conf");

    $text =~ s{^load_module.*\n}{}m;
    $text =~ s{redis://127\.0\.0\.1:6379;}{%%REDIS%%; timeout 30s; connect_timeout 30s;};
    $text =~ s{127\.0\.0\.1:8080}{127.0.0.1:%%PORT%%}g;
    $text =~ s{127\.0\.0\.1:900([123])}{$addr[$1 - 1]}ge;

    return $text;
}


# knows the sessions that it has issued

sub server {
    my ($n) = @_;

    my (%ids, $count);

    return $t->origin(default => sub {
        my ($req) = @_;

        my $id = ($req->{headers}{'mcp-session-id'} || [])->[0];

        return { status => 404, body => "s$n" } if defined $id && !$ids{$id};

        if ($req->{body} =~ /initialize/) {
            $id = "s$n-" . ++$count . '-' . int(rand 1e9);
            $ids{$id} = 1;
            return { body => "s$n", headers => [ 'Mcp-Session-Id' => $id ] };
        }

        return { body => "s$n", headers => [
                     'Content-Type' => 'text/event-stream' ] };
    });
}


# what a client says, with three servers behind two nodes

sub talk {
    my ($name, $server, $client) = @_;
    my @ports = map { port() } 1 .. 3;

    spew($t->file("$name-server.mjs"), $server);
    spew($t->file("$name-client.mjs"), $client);

    for my $port (@ports) {
        my $pid = fork;

        if ($pid == 0) {
            open STDOUT, '>', $t->file("server$port.log");
            open STDERR, '>&', \*STDOUT;
            exec $node, $t->file("$name-server.mjs"), $port;
            exit 1;
        }

        $t->track($pid);
        $t->wait_for(sub { IO::Socket::INET->new("127.0.0.1:$port") }, 30)
            or diag(slurp($t->file("server$port.log")));
    }

    my $command = join ' ', $node, $t->file("$name-client.mjs"), map {
        $t->node(name => "$name$_",
                 conf => example(map { "127.0.0.1:$_" } @ports))->start
          ->url('/mcp')
    } 1, 2;

    return scalar `$command 2>&1`;
}


sub port {
    my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1');

    return $s->sockport;
}


sub sdk_server {
    my ($sdk) = @_;

    return <<"EOF";
import { createRequire } from 'node:module';
import { randomUUID } from 'node:crypto';

const require = createRequire('$sdk/x.cjs');
const express = require('express');
const { McpServer } = require('\@modelcontextprotocol/sdk/server/mcp.js');
const { StreamableHTTPServerTransport } =
    require('\@modelcontextprotocol/sdk/server/streamableHttp.js');
const { isInitializeRequest } = require('\@modelcontextprotocol/sdk/types.js');

const port = process.argv[2];
const transports = {};
const app = express();

app.use(express.json());
app.all('/mcp', async (req, res) => {
    let transport = transports[req.headers['mcp-session-id']];

    if (!transport && isInitializeRequest(req.body)) {
        transport = new StreamableHTTPServerTransport({
            sessionIdGenerator: () => randomUUID(),
            onsessioninitialized: (id) => { transports[id] = transport; },
        });

        const server = new McpServer({ name: 'where', version: '1.0.0' });
        server.registerTool('where', { description: 'tells the port' },
            async () => ({ content: [{ type: 'text', text: port }] }));
        await server.connect(transport);
    }

    if (!transport) {
        res.status(404).json({ jsonrpc: '2.0', id: null,
            error: { code: -32001, message: 'Session not found' } });
        return;
    }

    await transport.handleRequest(req, res, req.body);
});
app.listen(port, '127.0.0.1');
EOF
}


# each request of a client goes to another node

sub sdk_client {
    my ($sdk) = @_;

    return <<"EOF";
import { createRequire } from 'node:module';

const require = createRequire('$sdk/x.cjs');
const { Client } = require('\@modelcontextprotocol/sdk/client/index.js');
const { StreamableHTTPClientTransport } =
    require('\@modelcontextprotocol/sdk/client/streamableHttp.js');

const urls = process.argv.slice(2);
let n = 0;

await Promise.all(Array.from({ length: 10 }, async () => {
    const client = new Client({ name: 'test', version: '1.0.0' });
    const transport = new StreamableHTTPClientTransport(new URL(urls[0]), {
        fetch: (url, init) => fetch(urls[n++ % urls.length], init),
    });

    await client.connect(transport);

    for (let i = 0; i < 4; i++) {
        const r = await client.callTool({ name: 'where', arguments: {} });
        console.log('call ' + r.content[0].text);
    }

    await transport.terminateSession();
    await client.close();
}));
process.exit(0);
EOF
}


sub server_without_sessions {
    my ($sdk) = @_;

    return <<"EOF";
import { createServer } from 'node:http';
import { createRequire } from 'node:module';

const require = createRequire('$sdk/x.cjs');
const { createMcpHandler, McpServer } =
    require('\@modelcontextprotocol/server');
const { toNodeHandler } = require('\@modelcontextprotocol/node');
const { z } = require('zod');

const port = process.argv[2];
const text = async () => ({ content: [{ type: 'text', text: port }] });

const handler = toNodeHandler(createMcpHandler(() => {
    const server = new McpServer({ name: 'where', version: '1.0.0' });
    for (const name of [ 'search', 'fetch' ]) {
        server.registerTool(name, { description: 'tells the port',
                                    inputSchema: z.object({}) }, text);
    }
    return server;
}));
createServer((req, res) => handler(req, res)).listen(port, '127.0.0.1');
EOF
}


sub client_without_sessions {
    my ($sdk) = @_;

    return <<"EOF";
import { createRequire } from 'node:module';

const require = createRequire('$sdk/x.cjs');
const { Client, StreamableHTTPClientTransport } =
    require('\@modelcontextprotocol/client');

const urls = process.argv.slice(2);
let n = 0;

for (const [user, calls] of [ ['me', 30], ['you', 1] ]) {
    const client = new Client({ name: 'test', version: '1.0.0' },
                              { versionNegotiation: { mode: 'auto' } });
    const transport = new StreamableHTTPClientTransport(new URL(urls[0]), {
        requestInit: { headers: { Authorization: 'Bearer ' + user } },
        fetch: (url, init) => fetch(urls[n++ % urls.length], init),
    });

    await client.connect(transport);
    console.log(user, client.getNegotiatedProtocolVersion(),
                transport.sessionId ? 'with' : 'without');

    const call = async (name) => {
        try {
            const r = await client.callTool({ name, arguments: {} });
            console.log(user, name, r.content[0].text);
        } catch (e) {
            console.log(user, name, /quota-exceeded/.test(e.message)
                                    ? 'refused' : e.message);
        }
    };

    for (let i = 0; i < calls; i++) {
        await call('search');
    }

    await call('fetch');
    await client.close();
}
process.exit(0);
EOF
}
