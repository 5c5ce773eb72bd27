#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# More clients as they are, as in t/idempotency_clients.t, before two nodes:
# each connection of a client comes to another one than its last.
#
# TEST_NPM=1 installs those of npm into build/npm and asks them as well;
# with TEST_CLIENT, a pattern, only those whose name matches.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Clients qw(has);

my $t = Coord->new(time_limit => 900);
$ENV{no_proxy} = $ENV{NO_PROXY} = "127.0.0.1";
$t->redis;

my $origin = $t->origin(default => sub {
    my ($req) = @_;
    my $body = '{"id":"' . $req->{path} . '","object":"charge",'
               . '"n":' . $req->{n} . ',"fill":"' . 'x' x 2000 . '"}';
    return { delay => 0.3, body => $body,
             headers => [ 'Content-Type' => 'application/json' ] };
});

# those of AWS sign each try anew: it is who signs that counts

my @nodes = map { $t->node(name => $_, workers => 2, http => <<'EOC')->start }
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }

    map $http_authorization $signer {
        "~^AWS4-HMAC-SHA256 Credential=(?<id>[^/]+)/"  $id;
    }

    coord_idempotency required on_failure=closed;
    coord_idempotency_on_unknown conflict;
    coord_idempotency_wait 10s;

    server {
        listen 127.0.0.1:%%PORT%%;
        location / { proxy_pass http://%%ORIGIN%%; }
        location /nowait/ { coord_idempotency_wait 0;
                            proxy_pass http://%%ORIGIN%%; }
        location /aws/ { coord_idempotency_key $http_amz_sdk_invocation_id;
                         coord_idempotency_scope $signer;
                         proxy_pass http://%%ORIGIN%%; }
    }
EOC
    qw(a b);

my $python = -x '/usr/bin/python3' ? '/usr/bin/python3' : 'python3';
my $gopath = '/usr/share/gocode';

my $clients = Coord::Clients->new(
    test => $t, origin => $origin, to => [ map { $_->port } @nodes ],
    npm => [ qw(superagent p-retry cockatiel ofetch node-fetch node-fetch-retry
                openai @anthropic-ai/sdk @octokit/core @octokit/plugin-retry
                @aws-sdk/client-lambda) ]);


sub node {
    my ($package, $text, %more) = @_;

    my $name = $package =~ s/\W+/-/gr . '.mjs';

    return { npm => $package, %more,
             run => sub { ('node', $clients->script($name, $text), @_) } };
}


sub python {
    my ($module, $text, %more) = @_;

    return { %more,
        run => sub { ($python, $clients->script("by-$module.py", $text), @_) },
        without => sub {
            join ', ', map { "no python3-$_" }
                       grep { !has("$python -c 'import $_'") }
                            split / /, $more{needs} || $module } };
}


my %client = (
    superagent => node('superagent', <<'EOP', not => { nowait => 1 }),
import request from 'superagent';
const [ , , url, key ] = process.argv;
const r = await request.post(url).set('Idempotency-Key', key)
    .set('Authorization', 'Bearer t').send({ amount: 1 }).buffer(true)
    .retry(5, (e, r) => e || r?.status == 409);
console.log(r.text);
EOP
    'p-retry' => node('p-retry', <<'EOP'),
import pRetry from 'p-retry';
const [ , , url, key ] = process.argv;
console.log(await pRetry(async () => {
    const r = await fetch(url, { method: 'POST', body: '{"amount":1}',
        headers: { 'Content-Type': 'application/json', 'Idempotency-Key': key,
                   'Authorization': 'Bearer t' } });
    if (!r.ok) throw new Error(r.status);
    return r.text();
}, { retries: 5, minTimeout: 200 }));
process.exit(0);
EOP
    cockatiel => node('cockatiel', <<'EOP'),
import { ExponentialBackoff, handleAll, retry } from 'cockatiel';
const [ , , url, key ] = process.argv;
const policy = retry(handleAll, { maxAttempts: 5,
    backoff: new ExponentialBackoff({ initialDelay: 200 }) });
console.log(await policy.execute(async () => {
    const r = await fetch(url, { method: 'POST', body: '{"amount":1}',
        headers: { 'Content-Type': 'application/json', 'Idempotency-Key': key,
                   'Authorization': 'Bearer t' } });
    if (!r.ok) throw new Error(r.status);
    return r.text();
}));
process.exit(0);
EOP
    ofetch => node('ofetch', <<'EOP', not => { middle => 1 }),
import { ofetch } from 'ofetch';
const [ , , url, key ] = process.argv;
console.log(await ofetch(url, { method: 'POST', body: { amount: 1 },
    retry: 5, retryDelay: 200, retryStatusCodes: [ 409, 500, 503 ],
    responseType: 'text', headers: { 'Idempotency-Key': key,
                                     'Authorization': 'Bearer t' } }));
process.exit(0);
EOP
    'node-fetch-retry' => node('node-fetch-retry', <<'EOP',
import fetch from 'node-fetch-retry';
const [ , , url, key ] = process.argv;
const r = await fetch(url, { method: 'POST', body: '{"amount":1}', retry: 5,
    pause: 200, silent: true, headers: { 'Content-Type': 'application/json',
        'Idempotency-Key': key, 'Authorization': 'Bearer t' } });
console.log(await r.text());
EOP
                               not => { middle => 1, nowait => 1 }),
    openai => node('openai', <<'EOP', not => { middle => 1 }),
import OpenAI from 'openai';
const [ , , url, key ] = process.argv;
const client = new OpenAI({ apiKey: 't', baseURL: new URL(url).origin,
                            maxRetries: 5 });
console.log(JSON.stringify(await client.post(new URL(url).pathname, {
    body: { amount: 1 }, headers: { 'Idempotency-Key': key } })));
process.exit(0);
EOP
    anthropic => node('@anthropic-ai/sdk', <<'EOP', not => { middle => 1 }),
import Anthropic from '@anthropic-ai/sdk';
const [ , , url, key ] = process.argv;
const client = new Anthropic({ authToken: 't', apiKey: null,
    baseURL: new URL(url).origin, maxRetries: 5 });
console.log(JSON.stringify(await client.post(new URL(url).pathname, {
    body: { amount: 1 }, headers: { 'Idempotency-Key': key } })));
process.exit(0);
EOP
    octokit => node('@octokit/plugin-retry', <<'EOP', not => { middle => 1 }),
import { Octokit } from '@octokit/core';
import { retry } from '@octokit/plugin-retry';
const [ , , url, key ] = process.argv;
const octokit = new (Octokit.plugin(retry))({ auth: 't',
    log: { debug() {}, info() {}, warn() {}, error() {} },
    baseUrl: new URL(url).origin, retry: { retryAfterBaseValue: 200 } });
const r = await octokit.request('POST ' + new URL(url).pathname, { amount: 1,
    headers: { 'Idempotency-Key': key }, request: { retries: 5 } });
console.log(JSON.stringify(r.data));
process.exit(0);
EOP
    aws => node('@aws-sdk/client-lambda', <<'EOP', not => { nowait => 1 },
import { InvokeCommand, LambdaClient } from '@aws-sdk/client-lambda';
const lambda = new LambdaClient({ region: 'eu-west-1', maxAttempts: 5,
    endpoint: process.argv[2],
    credentials: { accessKeyId: 'AKID', secretAccessKey: 's' } });
const r = await lambda.send(new InvokeCommand({ FunctionName: 'pay',
    Payload: '{"amount":1}' }));
console.log(new TextDecoder().decode(r.Payload));
process.exit(0);
EOP
                behind => '/2015-03-31/functions/pay/invocations'),

    'stripe for Python' => python('stripe', <<'EOP', not => { middle => 1 },
import sys, stripe, json
from urllib.parse import urlsplit
url = urlsplit(sys.argv[1])
stripe.api_key = 'sk_test_1'
stripe.max_network_retries = 5
stripe.enable_telemetry = False
r = stripe.api_requestor.APIRequestor(
    api_base=f'http://{url.netloc}').request('post', url.path, {'amount': 1})
print(r[0].body)
EOP
                                   needs => 'stripe requests'),
    'httpx and tenacity' => python('httpx', <<'EOP',
import sys, httpx, tenacity

@tenacity.retry(stop=tenacity.stop_after_attempt(6),
                wait=tenacity.wait_exponential(0.2))
def post():
    r = httpx.post(sys.argv[1], json={'amount': 1}, timeout=20, headers={
        'Idempotency-Key': sys.argv[2], 'Authorization': 'Bearer t'})
    r.raise_for_status()
    return r.text

print(post())
EOP
                                   needs => 'httpx tenacity'),
    'aiohttp and tenacity' => python('aiohttp', <<'EOP',
import sys, asyncio, aiohttp, tenacity

@tenacity.retry(stop=tenacity.stop_after_attempt(6),
                wait=tenacity.wait_exponential(0.2))
async def post():
    async with aiohttp.ClientSession(raise_for_status=True) as s:
        async with s.post(sys.argv[1], json={'amount': 1}, headers={
                'Idempotency-Key': sys.argv[2],
                'Authorization': 'Bearer t'}) as r:
            return await r.text()

print(asyncio.run(post()))
EOP
                                     needs => 'aiohttp tenacity'),
    wget => {
        run => sub {
            my ($url, $key) = @_;
            return ('wget', '-q', '-O', '-', '--tries=6', '--timeout=20',
                    '--retry-connrefused', '--retry-on-http-error=409,503',
                    '--waitretry=1', '--post-data', 'amount=1',
                    "--header=Idempotency-Key: $key",
                    '--header=Authorization: Bearer t', $url);
        },
        without => sub { has('command -v wget') ? '' : 'no wget' },
    },
    'guzzle for PHP' => {
        run => sub { ('php', $clients->script('guzzle.php', <<'EOP'), @_) },
<?php
require 'GuzzleHttp/autoload.php';
$stack = GuzzleHttp\HandlerStack::create();
$stack->push(GuzzleHttp\Middleware::retry(
    fn ($n, $request, $response, $e) =>
        $n < 5 && ($e || in_array($response->getStatusCode(), [409, 503])),
    fn ($n) => 200 * $n));
$client = new GuzzleHttp\Client(['handler' => $stack]);
echo $client->post($argv[1], ['json' => ['amount' => 1], 'headers' => [
    'Idempotency-Key' => $argv[2], 'Authorization' => 'Bearer t']])->getBody();
EOP
        without => sub { -e '/usr/share/php/GuzzleHttp/autoload.php' ? ''
                         : 'no php-guzzlehttp-guzzle' },
    },
    'faraday for Ruby' => {
        run => sub { ('ruby', $clients->script('faraday.rb', <<'EOP'), @_) },
require 'date'
require 'faraday'
f = Faraday.new do |f|
  f.request :retry, max: 5, interval: 0.2, methods: [:post],
    retry_statuses: [409, 503],
    exceptions: [Faraday::ConnectionFailed, Faraday::TimeoutError,
                 Faraday::RetriableResponse]
end
puts f.post(ARGV[0], '{"amount":1}', 'Content-Type' => 'application/json',
  'Idempotency-Key' => ARGV[1], 'Authorization' => 'Bearer t').body
EOP
        without => sub { has("ruby -e 'require %q(faraday)'") ? ''
                         : 'no ruby-faraday' },
    },
    'excon for Ruby' => {
        run => sub { ('ruby', $clients->script('excon.rb', <<'EOP'), @_) },
require 'excon'
puts Excon.post(ARGV[0], body: '{"amount":1}', idempotent: true,
  retry_limit: 6, retry_interval: 0.2, expects: [200], headers: {
    'Content-Type' => 'application/json', 'Idempotency-Key' => ARGV[1],
    'Authorization' => 'Bearer t' }).body
EOP
        without => sub { has("ruby -e 'require %q(excon)'") ? ''
                         : 'no ruby-excon' },
    },
    'retryablehttp for Go' => {
        run => sub { (go(), @_) },
        without => sub {
            -d "$gopath/src/github.com/hashicorp/go-retryablehttp"
            && has('command -v go') ? ''
            : 'no golang-github-hashicorp-go-retryablehttp-dev' },
        not => { middle => 1 },
    },
    'HttpClient of Java, by a loop' => {
        run => sub { ('java', $clients->script('Post.java', <<'EOP'), @_) },
import java.net.URI;
import java.net.http.*;

public class Post {
    public static void main(String[] a) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        HttpRequest request = HttpRequest.newBuilder(URI.create(a[0]))
            .header("Idempotency-Key", a[1])
            .header("Authorization", "Bearer t")
            .header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString("{\"amount\":1}"))
            .build();

        for (int i = 0; i < 6; i++) {
            try {
                HttpResponse<String> r = client.send(request,
                    HttpResponse.BodyHandlers.ofString());
                if (r.statusCode() < 300) {
                    System.out.println(r.body());
                    return;
                }
            } catch (java.io.IOException e) {
            }
            Thread.sleep(200L << i);
        }
    }
}
EOP
        without => sub { has('command -v java') ? '' : 'no java' },
    },
    'HttpClient 5 of Apache' => {
        run => sub { ('java', '-cp', java_path(),
                      $clients->script('Apache.java', <<'EOP'), @_) },
import org.apache.hc.client5.http.classic.methods.HttpPost;
import org.apache.hc.client5.http.impl.DefaultHttpRequestRetryStrategy;
import org.apache.hc.client5.http.impl.classic.*;
import org.apache.hc.core5.http.*;
import org.apache.hc.core5.http.io.entity.*;
import org.apache.hc.core5.util.TimeValue;
import java.util.List;

public class Apache {
    static class Again extends DefaultHttpRequestRetryStrategy {
        Again() {
            super(5, TimeValue.ofMilliseconds(500), List.of(
                      java.net.UnknownHostException.class),
                  List.of(409, 503));
        }

        protected boolean handleAsIdempotent(HttpRequest request) {
            return true;
        }
    }

    public static void main(String[] a) throws Exception {
        HttpPost post = new HttpPost(a[0]);
        post.setHeader("Idempotency-Key", a[1]);
        post.setHeader("Authorization", "Bearer t");
        post.setEntity(new StringEntity("{\"amount\":1}",
                                        ContentType.APPLICATION_JSON));
        try (CloseableHttpClient client = HttpClients.custom()
                 .setRetryStrategy(new Again()).build())
        {
            String body = client.execute(post,
                r -> EntityUtils.toString(r.getEntity()));
            System.out.println(body);
        }
    }
}
EOP
        without => sub { has('command -v java')
                         && -e '/usr/share/java/httpclient5.jar'
                         ? '' : 'no libhttpclient5-java' },
        not => { middle => 1 },
    },
);

sub java_path {
    return join ':', map { "/usr/share/java/$_.jar" }
        qw(httpclient5 httpcore5 httpcore5-h2 slf4j-api slf4j-nop);
}


# compiled once

sub go {
    my $file = $t->file('post');

    if (!-x $file) {
        my $source = $clients->script('post.go', <<'EOP');
package main

import (
    "context"
    "fmt"
    "io"
    "net/http"
    "os"
    "time"
    "github.com/hashicorp/go-retryablehttp"
)

func main() {
    client := retryablehttp.NewClient()
    client.Logger = nil
    client.RetryWaitMin = 200 * time.Millisecond
    client.CheckRetry = func(c context.Context, r *http.Response,
                             e error) (bool, error) {
        if r != nil && r.StatusCode == 409 {
            return true, nil
        }
        return retryablehttp.DefaultRetryPolicy(c, r, e)
    }
    request, _ := retryablehttp.NewRequest("POST", os.Args[1],
                                           []byte(`{"amount":1}`))
    request.Header.Set("Content-Type", "application/json")
    request.Header.Set("Idempotency-Key", os.Args[2])
    request.Header.Set("Authorization", "Bearer t")
    r, err := client.Do(request)
    if err != nil {
        fmt.Println(err)
        return
    }
    body, _ := io.ReadAll(r.Body)
    fmt.Println(string(body))
}
EOP
        local $ENV{GO111MODULE} = 'off';
        local $ENV{GOPATH} = $gopath;
        local $ENV{GOCACHE} = $t->file('gocache');
        system('go', 'build', '-o', $file, $source);
    }

    return $file;
}

my $only = $ENV{TEST_CLIENT};

for my $name (sort keys %client) {
    $clients->ask($name, $client{$name}) if !$only || $name =~ /$only/;
}

done_testing();
