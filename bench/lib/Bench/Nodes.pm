package Bench::Nodes;

# Copyright (C) ngx_coord_module contributors

# What a node is measured in that is no row of requests.
#
#   listeners($t, $redis)  clients of server-sent events
#   zones($t)              memory of zones that nobody uses

use strict;
use warnings;

use IO::Socket::INET;
use Time::HiRes qw(sleep time);

use Bench qw(cpu median);
use Coord::Util qw(slurp);


# clients of server-sent events: a message to all of them, and what they cost
# while there is none

sub listeners {
    my ($t, $redis) = @_;

    my $open = `sh -c 'ulimit -n'`;
    my $n = $open < 11_000 ? int($open / 2) : 10_000;
    my $room = int(1.2 * $n);         # nginx keeps a sixteenth of them free

    my $node = $t->node(name => 'listeners', main => <<"END", http => <<'EOT');
worker_rlimit_nofile $room;
events { worker_connections $room; }
END
        coord_store main { server %%REDIS%%; timeout 2s; key_prefix e:; }
        access_log off;
        server {
            listen 127.0.0.1:%%PORT%% backlog=4096;
            location /events { coord_subscribe room heartbeat=off; }
            location /api/ { coord_api; }
        }
EOT
    $node->start;

    my ($worker) = $node->workers;
    my $admin = $redis->connect;
    my @clients;

    for my $i (1 .. $n) {
        my $c = IO::Socket::INET->new(
            PeerAddr => '127.0.0.1:' . $node->port) or die "bench: $!";
        $c->syswrite("GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
        push @clients, $c;

        next if $i % 200;
        heard($_, qr/\r\n\r\n/) for @clients[-200 .. -1];
    }

    my ($cpu, $time) = (cpu($worker), time);
    sleep 5;
    printf "\n%d listeners that hear nothing: %.2f %% of a core\n", $n,
           100 * (cpu($worker) - $cpu) / (time - $time);

    my ($receivers, @took);

    for my $round (1 .. 5) {
        ($cpu, $time) = (cpu($worker), time);
        $receivers = $admin->command(PUBLISH => 'room', "message $round");
        heard($_, qr/data: message $round\n\n/) for @clients;
        push @took, time - $time;
        $cpu = cpu($worker) - $cpu;
    }

    printf "a message to %d listeners of one worker: %.2f s, %.2f s of one"
           . " core, reach 1 s; sent by Redis %d times\n",
           $n, median(@took), $cpu, $receivers;

    $_->close for @clients;
}


sub heard {
    my ($client, $what) = @_;

    my $text = '';

    while ($text !~ $what) {
        $client->sysread($text, 65536, length $text)
            or die "bench: a listener was cut\n";
    }
}


# resident memory of a worker whose zone is large and empty, over that of one
# with a stock zone as large

sub zones {
    my ($t) = @_;

    my %kb;

    for my $plain (1, 0) {
        my $coord = $plain ? '' : 'coord_';
        my $node = $t->node(name => "zone$plain", plain => $plain,
                            http => <<"END")->start;
        ${coord}limit_req_zone \$binary_remote_addr zone=z:200m rate=1r/s;
        access_log off;
        server {
            listen 127.0.0.1:%%PORT%%;
            location / { ${coord}limit_req zone=z; empty_gif; }
        }
END
        my ($worker) = $node->workers;

        ($kb{$plain}) = slurp("/proc/$worker/status") =~ /^VmRSS:\s+(\d+)/m;
    }

    printf "\na zone of 200m that is empty takes %.1f MB more than a stock one,"
           . " reach 4\n", ($kb{0} - $kb{1}) / 1024;
}


1;
