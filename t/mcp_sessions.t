#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# examples/mcp.conf on two nodes, with servers and clients of the SDKs for
# Node.js that have sessions: follow-ups at once and in parallel, HTTP/2, streams
# that are resumed, sessions that are ended, a node that is killed, Redis that is
# away.  Each request of a client goes to another node than its last.
#
# TEST_NPM=1 installs the SDKs into build/npm; MCP_SDK names a directory that has
# them in node_modules.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Util qw(free_port slurp spew);
use IO::Socket::INET;
use IPC::Open2;

my $sdk = $ENV{MCP_SDK} || "$FindBin::Bin/../build/npm";

plan(skip_all => 'neither TEST_NPM nor MCP_SDK is set')
    if !$ENV{TEST_NPM} && !$ENV{MCP_SDK};

my $t = Coord->new(time_limit => 900);
my $redis = $t->redis;
my $clients = 20;

if (!$ENV{MCP_SDK}) {
    system("mkdir -p $sdk && cd $sdk && npm install --no-audit --no-fund "
           . join(' ', qw(express zod undici), map { "\@modelcontextprotocol/$_" }
                                             qw(sdk client server node))
           . ' >/dev/null 2>&1') == 0
        or diag('npm install has failed');
}

spew("$sdk/coord-mcp-server.mjs", server());
spew("$sdk/coord-mcp-client.mjs", client());

# the SDK of the servers, that of the clients

talk('sdk', 'sdk');
talk('server', 'client');
talk('sdk', 'client');

done_testing();


sub talk {
    my ($server, $client) = @_;

    my $of = "$server, $client";
    my @ports = map { free_port() } 1 .. 3;

    for my $port (@ports) {
        my $pid = fork;
        die "fork: $!" if !defined $pid;

        if ($pid == 0) {
            open STDOUT, '>', $t->file("$server$port.log");
            open STDERR, '>&', \*STDOUT;
            exec 'node', "$sdk/coord-mcp-server.mjs", $port, $server;
            exit 1;
        }

        $t->track($pid);
        $t->wait_for(sub { IO::Socket::INET->new("127.0.0.1:$port") }, 60)
            or diag(slurp($t->file("$server$port.log")));
    }

    my @nodes = map { $t->node(name => "$server$client$_",
                               conf => example(@ports))->start } 'a', 'b';

    my $pid = open2(my $out, my $in, 'node', "$sdk/coord-mcp-client.mjs",
                    $client, (map { $_->url('/mcp') } @nodes),
                    map { 'http://127.0.0.1:' . $_->port(2) . '/mcp' } @nodes);
    $t->track($pid);

    my $begin = sub { syswrite $in, "$_[0]\n" };
    my $end = sub { my $line = <$out>; return $line =~ s/\s+\z//r };
    my $say = sub { $begin->(@_); return $end->() };

    # the first follow-ups of a session are there before its answer is old

    is($say->("connect $clients 10"), 'right 200 wrong 0 failed 0',
       "$of: first follow-ups");
    is($say->('calls 10'), 'right 200 wrong 0 failed 0', "$of: calls");

    # of connections that nobody uses it is nginx that closes first: a POST
    # that meets the end of one is lost

    my $closed = sub { join '', map { slurp($t->file("$server$_.log")) =~
                                      /^(closed .*\n)/mg } @ports };

    $t->wait_for(sub { $closed->() }, 60);
    like($closed->(), qr/^(?:closed by nginx\n)+\z/, "$of: idle connections");

    # a stream that the server closes in the middle, and that is asked for
    # again with Last-Event-ID

    is($say->('slow'), 'right 20 wrong 0 failed 0 told 100',
       "$of: streams are resumed, nothing is lost");

    # a node is killed, with the streams that it has

    my $go = $t->file("go-$server-$client");

    $begin->("slow $go");
    is($end->(), 'begun', "$of: streams have begun");
    $nodes[1]->destroy;
    spew($go, '');
    is($end->(), 'right 20 wrong 0 failed 0 told 100',
       "$of: a node is killed, streams are resumed at the other one");
    is($say->('calls 10'), 'right 200 wrong 0 failed 0',
       "$of: calls without it");
    $nodes[1]->start;
    is($say->('calls 10'), 'right 200 wrong 0 failed 0',
       "$of: calls when it is there again");

    # what a node has seen it knows without Redis

    $begin->('calls 10');
    $redis->stop;
    is($end->(), 'right 200 wrong 0 failed 0', "$of: Redis is stopped");
    is($say->('calls 10'), 'right 200 wrong 0 failed 0', "$of: and away");

    is($say->('delete'), 'gone 20', "$of: sessions that are ended");

    close $in;
    waitpid $pid, 0;

    $_->allow(qr/Connection refused|store "main"|closed the connection|session/,
              qr/prematurely closed|BYPASSED/) for @nodes;
    $_->stop for @nodes;
    $redis->run;
}


sub example {
    my @ports = @_;
    my $text = slurp("$FindBin::Bin/../examples/mcp.conf");

    $text =~ s{^load_module.*\n}{}m;
    $text =~ s{redis://127\.0\.0\.1:6379;}{%%REDIS%%; timeout 30s; connect_timeout 30s;};
    $text =~ s{listen 127\.0\.0\.1:8080;}{listen 127.0.0.1:%%PORT%%;
                                     listen 127.0.0.1:%%PORT_2%% http2;};
    $text =~ s{127\.0\.0\.1:900([123])}{127.0.0.1:$ports[$1 - 1]}g;

    return $text;
}


# its name tells where it is; "slow" says so much, and leaves its stream or waits
# in the middle

sub server {
    return <<'EOF';
import express from 'express';
import { z } from 'zod';
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';

const [ , , port, sdk ] = process.argv;
const two = sdk == 'server';
const { McpServer } = await import(two ? '@modelcontextprotocol/server'
    : '@modelcontextprotocol/sdk/server/mcp.js');
const Transport = two
    ? (await import('@modelcontextprotocol/node'))
          .NodeStreamableHTTPServerTransport
    : (await import('@modelcontextprotocol/sdk/server/streamableHttp.js'))
          .StreamableHTTPServerTransport;

const transports = {};
const events = [];
const eventStore = {
    async storeEvent(stream, message) {
        events.push({ stream, message });
        return String(events.length);
    },
    async replayEventsAfter(id, { send }) {
        const { stream } = events[id - 1];
        for (let i = Number(id); i < events.length; i++) {
            if (events[i].stream == stream) {
                await send(String(i + 1), events[i].message);
            }
        }
        return stream;
    },
};
const text = () => ({ content: [ { type: 'text', text: port } ] });
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

function server() {
    const server = new McpServer({ name: port, version: '1.0.0' });
    server.registerTool('where', { description: 'tells the port' }, text);
    server.registerTool('slow', { description: 'takes a while',
                                  inputSchema: z.object({
                                      file: z.string() }) },
        async ({ file }, x) => {
            const token = (two ? x.mcpReq : x)._meta.progressToken;
            const tell = (n) => {
                const note = { method: 'notifications/progress',
                    params: { progressToken: token, progress: n } };
                return two ? x.mcpReq.notify(note) : x.sendNotification(note);
            };
            await tell(1);
            await tell(2);
            if (file) {
                while (!existsSync(file)) await pause(20);
            } else {
                (two ? x.http : x)[two ? 'closeSSE' : 'closeSSEStream']();
                await pause(50);
            }
            for (const n of [ 3, 4, 5 ]) await tell(n);
            return text();
        });
    return server;
}

const app = express();
app.use(express.json());
app.all('/mcp', async (req, res) => {
    let transport = transports[req.headers['mcp-session-id']];

    if (!transport && req.body?.method == 'initialize') {
        transport = new Transport({ eventStore, retryInterval: 100,
            sessionIdGenerator: () => randomUUID(),
            onsessioninitialized: (id) => { transports[id] = transport; },
            onsessionclosed: (id) => { delete transports[id]; } });
        await server().connect(transport);
    }

    if (!transport) {
        res.status(404).json({ jsonrpc: '2.0', id: null,
            error: { code: -32001, message: 'Session not found' } });
        return;
    }

    await transport.handleRequest(req, res, req.body);
});

// who closes what is idle; not what is too many

const idle = new Map();

app.listen(port, '127.0.0.1').on('request', (req, res) => {
    if (!idle.has(req.socket)) {
        req.socket.on('close', () => {
            if (Date.now() - idle.get(req.socket) > 3000) {
                console.log('closed by ' + (req.socket.readableEnded ? 'nginx'
                                                                     : 'itself'));
            }
        });
    }
    idle.set(req.socket, Infinity);
    res.on('close', () => idle.set(req.socket, Date.now()));
});
EOF
}


# one half of them speaks HTTP/2, in the clear; a node that cannot be reached is
# left out

sub client {
    return <<'EOF';
import { createInterface } from 'node:readline';
import { fetch as fetch2, H2CClient } from 'undici';

const [ , , sdk, ...urls ] = process.argv;
const two = sdk == 'client';
const { Client, StreamableHTTPClientTransport } = two
    ? await import('@modelcontextprotocol/client')
    : { ...await import('@modelcontextprotocol/sdk/client/index.js'),
        ...await import('@modelcontextprotocol/sdk/client/streamableHttp.js') };

const clients = [];
let turn = 0;

async function ask(http2, init) {
    for (let i = 0; ; i++) {
        const url = new URL(urls[turn++ % 2 + 2 * http2]);
        try {
            return http2
                ? await fetch2(url, { ...init, body: init.body,
                                      dispatcher: new H2CClient(url.origin) })
                : await fetch(url, init);
        } catch (e) {
            if (i == 10 || e.name == 'AbortError') throw e;
            await new Promise((done) => setTimeout(done, 50));
        }
    }
}

async function call(c, name, args, options) {
    const what = { name, arguments: args || {} };
    options = { timeout: 60000, ...options };
    try {
        const r = two ? await c.client.callTool(what, options)
                      : await c.client.callTool(what, undefined, options);
        return r.content[0].text == c.client.getServerVersion().name
               ? 'right' : 'wrong';
    } catch (e) {
        console.error(name, e.message);
        return 'failed';
    }
}

async function connect(calls) {
    const http2 = clients.length % 2;
    const c = { client: new Client({ name: 'test', version: '1.0.0' }) };
    clients.push(c);
    c.transport = new StreamableHTTPClientTransport(new URL(urls[0]), {
        fetch: (url, init) => ask(http2, init),
        reconnectionOptions: { initialReconnectionDelay: 50,
            maxReconnectionDelay: 500, reconnectionDelayGrowFactor: 1.5,
            maxRetries: 50 } });
    await c.client.connect(c.transport);
    return Promise.all(Array.from({ length: calls }, () => call(c, 'where')));
}

const count = (all) => [ 'right', 'wrong', 'failed' ].map((what) =>
    what + ' ' + all.flat().filter((x) => x == what).length).join(' ');

const commands = {
    async connect(n, calls) {
        return count(await Promise.all(
            Array.from({ length: n }, () => connect(Number(calls)))));
    },
    async calls(n) {
        return count(await Promise.all(clients.map((c) => Promise.all(
            Array.from({ length: n }, () => call(c, 'where'))))));
    },
    async slow(file = '') {
        const told = new Set();
        const begun = clients.map((c, i) => new Promise((done) => {
            c.running = call(c, 'slow', { file }, {
                resetTimeoutOnProgress: true, onprogress: (p) => {
                    told.add(i + ' ' + p.progress);
                    if (p.progress == 2) done();
                } });
            c.running.then(done);
        }));
        if (file) {
            await Promise.all(begun);
            console.log('begun');
        }
        const all = await Promise.all(clients.map((c) => c.running));
        return count(all) + ' told ' + told.size;
    },
    async delete() {
        let gone = 0;
        for (const c of clients) {
            const id = c.transport.sessionId;
            await c.transport.terminateSession();
            const r = await fetch(urls[0], { method: 'POST', body: '{}',
                headers: { 'Mcp-Session-Id': id, 'Content-Type':
                    'application/json' } });
            gone += (r.status == 404);
        }
        return 'gone ' + gone;
    },
};

for await (const line of createInterface({ input: process.stdin })) {
    const [ name, ...args ] = line.split(' ');
    console.log(await commands[name](...args));
}
process.exit(0);
EOF
}
