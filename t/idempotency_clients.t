#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Clients as they are, with the retries that they have built in, each through a
# connection that breaks once or twice: one execution, one answer.
#
# TEST_NPM=1 installs those of npm into build/npm and asks them as well.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Chaos;
use Coord::Clients qw(has);
use Coord::Util qw(free_port slurp spew);

my $t = Coord->new;
$ENV{no_proxy} = $ENV{NO_PROXY} = "127.0.0.1";
$t->redis;

# slow enough to be seen while it runs

my $origin = $t->origin(default => sub {
    my ($req) = @_;
    my $body = '{"id":"' . $req->{path} . '","object":"charge",'
               . '"n":' . $req->{n} . ',"fill":"' . 'x' x 2000 . '"}';
    return { delay => 0.3, body => $body,
             headers => [ 'Content-Type' => 'application/json' ] };
});

my $grpc_port = free_port();
$t->set(GRPC => "127.0.0.1:$grpc_port");

my $n = $t->node(name => 'n', workers => 2, http => <<'EOC')->start;
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }

    coord_idempotency required on_failure=closed;
    coord_idempotency_on_unknown conflict;
    coord_idempotency_wait 10s;

    server {
        listen 127.0.0.1:%%PORT%%;
        location / { proxy_pass http://%%ORIGIN%%; }
        location /nowait/ { coord_idempotency_wait 0;
                            proxy_pass http://%%ORIGIN%%; }
    }

    server {
        listen 127.0.0.1:%%PORT_2%% http2;
        location / { grpc_pass grpc://%%GRPC%%; }
    }
EOC

my $python = -x '/usr/bin/python3' ? '/usr/bin/python3' : 'python3';

my $clients = Coord::Clients->new(
    test => $t, origin => $origin, to => $n->port,
    npm => [ qw(stripe got axios axios-retry undici fetch-retry ky
                @grpc/grpc-js) ]);

sub script { return $clients->script(@_) }
sub run { return $clients->run(@_) }


# what one does not repeat is up to the application

my %client = (
    curl => {
        run => sub {
            my ($url, $key) = @_;
            return ('curl', '-sS', '--retry', 5, '--retry-all-errors',
                    '--retry-delay', 1, '--max-time', 20, '--data', 'amount=1',
                    '-H', "Idempotency-Key: $key",
                    '-H', 'Authorization: Bearer t', $url);
        },
        without => sub { has('command -v curl') ? '' : 'no curl' },
    },
    requests => {
        run => sub { ($python, script('client.py', <<'EOP'), @_) },
import sys, requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

s = requests.Session()
s.mount('http://', HTTPAdapter(max_retries=Retry(
    total=5, backoff_factor=0.1, status_forcelist=[409, 503],
    allowed_methods=['POST'])))
r = s.post(sys.argv[1], data={'amount': 1}, timeout=20, headers={
    'Idempotency-Key': sys.argv[2], 'Authorization': 'Bearer t'})
r.raise_for_status()
print(r.text)
EOP
        without => sub {
            has("$python -c 'import requests'") ? '' : 'no python3-requests'
        },
        not => { middle => 1 },
    },
    stripe => {
        npm => 'stripe',
        not => { middle => 1 },
        run => sub { ('node', script('stripe.mjs', <<'EOP'), @_) },
import Stripe from 'stripe';
const url = new URL(process.argv[2]);
const stripe = new Stripe('sk_test_1', { host: url.hostname, port: url.port,
    protocol: 'http', maxNetworkRetries: 4, telemetry: false });
const charge = await stripe.rawRequest('POST', url.pathname, { amount: 1 });
console.log(JSON.stringify(charge));
process.exit(0);
EOP
    },
    got => {
        npm => 'got',
        run => sub { ('node', script('got.mjs', <<'EOP'), @_) },
import got from 'got';
const body = await got.post(process.argv[2], { json: { amount: 1 }, headers: {
    'Idempotency-Key': process.argv[3], 'Authorization': 'Bearer t' },
    retry: { limit: 5, methods: [ 'POST' ], statusCodes: [ 409, 503 ],
             errorCodes: [ 'ECONNRESET', 'ERR_HTTP_CONTENT_LENGTH_MISMATCH' ]
           } }).text();
console.log(body);
EOP
    },
    undici => {
        npm => 'undici',
        not => { middle => 1 },
        run => sub { ('node', script('undici.mjs', <<'EOP'), @_) },
import { Agent, interceptors, request } from 'undici';
const r = await request(process.argv[2], { method: 'POST',
    dispatcher: new Agent().compose(interceptors.retry({ maxRetries: 5,
        minTimeout: 100, methods: [ 'POST' ], statusCodes: [ 409, 503 ],
        errorCodes: [ 'ECONNRESET', 'UND_ERR_SOCKET' ] })),
    body: '{"amount":1}', headers: { 'Content-Type': 'application/json',
        'Idempotency-Key': process.argv[3], 'Authorization': 'Bearer t' } });
console.log(await r.body.text());
process.exit(0);
EOP
    },
    'retry-agent' => {
        npm => 'undici',
        not => { middle => 1 },
        run => sub { ('node', script('agent.mjs', <<'EOP'), @_) },
import { Agent, RetryAgent, request } from 'undici';
const r = await request(process.argv[2], { method: 'POST',
    dispatcher: new RetryAgent(new Agent(), { maxRetries: 5,
        minTimeout: 100, methods: [ 'POST' ], statusCodes: [ 409, 503 ],
        errorCodes: [ 'ECONNRESET', 'UND_ERR_SOCKET' ] }),
    body: '{"amount":1}', headers: { 'Content-Type': 'application/json',
        'Idempotency-Key': process.argv[3], 'Authorization': 'Bearer t' } });
console.log(await r.body.text());
process.exit(0);
EOP
    },
    ky => {
        npm => 'ky',
        not => { middle => 1 },
        run => sub { ('node', script('ky.mjs', <<'EOP'), @_) },
import ky from 'ky';
console.log(await ky.post(process.argv[2], { json: { amount: 1 },
    timeout: 20000, headers: { 'Idempotency-Key': process.argv[3],
                               'Authorization': 'Bearer t' },
    retry: { limit: 5, methods: [ 'post' ], statusCodes: [ 409, 503 ],
             backoffLimit: 500 } }).text());
process.exit(0);
EOP
    },
    fetch => {
        npm => 'fetch-retry',
        not => { middle => 1 },
        run => sub { ('node', script('fetch.mjs', <<'EOP'), @_) },
import fetchRetry from 'fetch-retry';
const r = await fetchRetry(fetch)(process.argv[2], { method: 'POST',
    retries: 5, retryDelay: 200, retryOn: [ 409, 503 ], body: '{"amount":1}',
    headers: { 'Content-Type': 'application/json',
        'Idempotency-Key': process.argv[3], 'Authorization': 'Bearer t' } });
console.log(await r.text());
process.exit(0);
EOP
    },
    'axios-retry' => {
        npm => 'axios-retry',
        run => sub { ('node', script('axios.mjs', <<'EOP'), @_) },
import axios from 'axios';
import axiosRetry from 'axios-retry';
axiosRetry(axios, { retries: 5, retryDelay: axiosRetry.exponentialDelay,
    retryCondition: (e) => axiosRetry.isNetworkError(e)
        || axiosRetry.isRetryableError(e)
        || e.code == 'ECONNRESET' || e.response?.status == 409 });
const r = await axios.post(process.argv[2], { amount: 1 }, {
    responseType: 'text', transformResponse: [],
    headers: { 'Idempotency-Key': process.argv[3],
               'Authorization': 'Bearer t' } });
console.log(r.data);
EOP
    },
);


$clients->ask($_, $client{$_}) for sort keys %client;

SKIP: {
    skip('gRPC: no python3-grpcio', 1)
        if !has("$python -c 'import grpc'");
    grpc();
}

SKIP: {
    my $why = $clients->without_npm('@grpc/grpc-js');
    skip("gRPC for Node.js: $why", 1) if $why;
    grpc_js();
}

done_testing();


# the retry policy of gRPC, in its service configuration

sub grpc {
    my $ran = $t->file('grpc-ran');
    my $server = $t->file('grpc-server.py');
    my $client = $t->file('grpc-client.py');

    spew($ran, '');
    spew($server, <<'EOP');
import sys, time, grpc
from concurrent import futures

def pay(request, context):
    with open(sys.argv[2], 'a') as f:
        f.write(request.decode() + '\n')
    time.sleep(0.3)
    return b'paid ' + request

class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(pay)

server = grpc.server(futures.ThreadPoolExecutor(4),
                     handlers=[Handler()])
server.add_insecure_port('127.0.0.1:' + sys.argv[1])
server.start()
server.wait_for_termination()
EOP
    spew($client, <<'EOP');
import sys, json, grpc

config = json.dumps({'methodConfig': [{'name': [{}], 'retryPolicy': {
    'maxAttempts': 5, 'initialBackoff': '0.1s', 'maxBackoff': '1s',
    'backoffMultiplier': 2, 'retryableStatusCodes': ['UNAVAILABLE']}}]})
channel = grpc.insecure_channel('127.0.0.1:' + sys.argv[1], options=[
    ('grpc.service_config', config), ('grpc.enable_retries', 1),
    ('grpc.enable_http_proxy', 0)])
call = channel.unary_unary('/bank.Bank/Pay')
print(call(sys.argv[2].encode(), timeout=20, metadata=[
    ('idempotency-key', sys.argv[2]), ('authorization', 'Bearer t')]).decode())
EOP

    my $pid = fork();
    die "fork: $!" if !defined $pid;
    exec($python, $server, $grpc_port, $ran) if $pid == 0;
    $t->track($pid);

    $t->wait_for(sub {
        IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                              PeerPort => $grpc_port) }, 20)
        or return fail('the gRPC server starts');

    for my $breaks ([], ['running'], ['answered'], ['running', 'answered']) {
        my $key = join '-', 'grpc', @$breaks;
        my $ran_it = sub { grep { $_ eq $key } split /\n/, slurp($ran) };
        my $chaos = Coord::Chaos->start(
            test => $t, to => $n->port(2), breaks => [@$breaks],
            begun => sub { scalar $ran_it->() });

        is(run($python, $client, $chaos->port, $key), "paid $key",
           'gRPC, ' . (@$breaks ? "broken: @$breaks" : 'whole')
           . ': it has its answer');
        is(scalar($ran_it->()), 1, 'of one execution');
        cmp_ok($chaos->connections, '>', $#$breaks, 'as it should be');
        $chaos->stop;
    }
}


# the same of npm, and responses that are streams: of three messages the first
# one comes before the server sends the second

sub grpc_js {
    my $ran = $t->file('grpc-js-ran');
    my $go = $t->file('grpc-js-go');

    my $server = script('grpc-server.mjs', <<'EOP');
import grpc from '@grpc/grpc-js';
import fs from 'node:fs';
const [ , , port, ran, go ] = process.argv;
const bytes = { requestSerialize: (b) => b, requestDeserialize: (b) => b,
                responseSerialize: (b) => b, responseDeserialize: (b) => b };
const server = new grpc.Server();
server.addService({
    pay: { path: '/bank.Bank/Pay', requestStream: false,
           responseStream: false, ...bytes },
    list: { path: '/bank.Bank/List', requestStream: false,
            responseStream: true, ...bytes },
}, {
    pay(call, done) {
        fs.appendFileSync(ran, call.request + '\n');
        setTimeout(() => done(null, Buffer.from('paid ' + call.request)), 300);
    },
    async list(call) {
        fs.appendFileSync(ran, call.request + '\n');
        call.write(Buffer.from('one'));
        while (!fs.existsSync(go))
            await new Promise((done) => setTimeout(done, 20));
        call.write(Buffer.from('two'));
        call.write(Buffer.from('three'));
        call.end();
    },
});
server.bindAsync('127.0.0.1:' + port, grpc.ServerCredentials.createInsecure(),
                 () => {});
EOP

    my $client = script('grpc-client.mjs', <<'EOP');
import grpc from '@grpc/grpc-js';
import fs from 'node:fs';
const [ , , port, key, go ] = process.argv;
const config = JSON.stringify({ methodConfig: [ { name: [ {} ], retryPolicy: {
    maxAttempts: 5, initialBackoff: '0.1s', maxBackoff: '1s',
    backoffMultiplier: 2, retryableStatusCodes: [ 'UNAVAILABLE' ] } } ] });
const client = new grpc.Client('127.0.0.1:' + port,
    grpc.credentials.createInsecure(),
    { 'grpc.service_config': config, 'grpc.enable_http_proxy': 0 });
const fields = new grpc.Metadata();
fields.set('idempotency-key', key);
fields.set('authorization', 'Bearer t');
const same = (b) => b;
const within = { deadline: Date.now() + 20000 };
if (go) {
    const got = [];
    const call = client.makeServerStreamRequest('/bank.Bank/List', same, same,
        Buffer.from(key), fields, within);
    call.on('data', (b) => { got.push(b); fs.writeFileSync(go, ''); });
    call.on('end', () => { console.log(got.join(' ')); process.exit(0); });
    call.on('error', (e) => { console.log(e.message); process.exit(1); });
} else {
    client.makeUnaryRequest('/bank.Bank/Pay', same, same, Buffer.from(key),
        fields, within, (e, b) => {
            console.log(e ? e.message : b.toString());
            process.exit(0);
        });
}
EOP

    my $port = free_port();
    my $pid = fork();
    die "fork: $!" if !defined $pid;
    exec('node', $server, $port, $ran, $go) if $pid == 0;
    $t->track($pid);

    my $front = $t->node(name => 'js', workers => 2, http => <<"EOC")->start;
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }

    coord_idempotency required on_failure=closed;
    coord_idempotency_on_unknown conflict;
    coord_idempotency_wait 10s;

    server {
        listen 127.0.0.1:%%PORT%% http2;
        location / { grpc_pass grpc://127.0.0.1:$port; }
    }
EOC

    spew($ran, '');
    $t->wait_for(sub {
        IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) },
        20) or return fail('the gRPC server of Node.js starts');

    for my $breaks ([], ['running'], ['answered'], ['running', 'answered']) {
        my $key = join '-', 'js', @$breaks;
        my $ran_it = sub { grep { $_ eq $key } split /\n/, slurp($ran) };
        my $chaos = Coord::Chaos->start(
            test => $t, to => $front->port, breaks => [@$breaks],
            begun => sub { scalar $ran_it->() });

        is(run('node', $client, $chaos->port, $key), "paid $key",
           'gRPC for Node.js, ' . (@$breaks ? "broken: @$breaks" : 'whole')
           . ': it has its answer');
        is(scalar($ran_it->()), 1, 'of one execution');
        $chaos->stop;
    }

    for my $try (1, 2) {
        is(run('node', $client, $front->port, 'stream', $go), 'one two three',
           "gRPC for Node.js, a stream, $try: as it comes");
    }

    is(scalar(grep { $_ eq 'stream' } split /\n/, slurp($ran)), 1,
       'of one execution');
}
