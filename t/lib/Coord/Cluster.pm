package Coord::Cluster;

# Copyright (C) ngx_coord_module contributors

# A real Redis Cluster of a test, on loopback.
#
#   my $c = Coord::Cluster->start($t, masters => 3, replicas => 1, conf => []);
#
# each => sub { my ($n) = @_; conf lines of the n-th, from 1 }, meet => [ the
# ports that they announce, if other than those ].
#
# Gives %%CLUSTER%%: a line "server" for each.  Slots are split evenly.
#
#   @{$c->{servers}}            Coord::Redis::Server, masters first
#   $c->slot($key)              by CLUSTER KEYSLOT
#   Coord::Cluster::slot_of($key)
#   $c->master($slot)           the server that has it now
#   $c->key_on($server, $head, $tail)   a name x with {x} in one of its slots
#   $c->id($server)
#   $c->sum('DBSIZE')           of all masters
#   $c->begin_move($slot, $to), $c->move_keys($slot, $to),
#   $c->end_move($slot, $to)    the three parts of a migration
#   $c->wait_ok                 until all that live say so

use strict;
use warnings;

use Time::HiRes qw(sleep);

use Coord::Util qw(free_port wait_for);


sub start {
    my ($class, $t, %opt) = @_;

    my $masters = $opt{masters} || 3;
    my $n = $masters * (1 + ($opt{replicas} || 0));
    my $self = bless { servers => [], masters => $masters }, $class;

    # who cannot be replaced need not be missed as soon

    my $timeout = $opt{replicas} ? 700 : 3000;

    my ($version) = `redis-server --version 2>/dev/null` =~ /v=(\d+)/;

    for (1 .. $n) {
        my @bus;

        if (($version || 0) >= 7) {
            my $port = free_port();
            @bus = "cluster-port $port";
        }

        push @{$self->{servers}},
             $t->redis('cluster-enabled yes', "cluster-node-timeout $timeout",
                       'cluster-replica-validity-factor 0',
                       'repl-diskless-sync-delay 0', @bus, @{$opt{conf} || []},
                       $opt{each} ? $opt{each}->($_) : ());
        $self->{servers}[-1]{bus} = ($bus[0] || '') =~ /(\d+)/ ? $1 : '';
    }

    my $first = $self->{servers}[0];
    my $share = 16384 / $masters;

    for my $i (0 .. $n - 1) {
        my $server = $self->{servers}[$i];
        my $redis = $server->connect(die => 1);

        $redis->command('CLUSTER', 'SET-CONFIG-EPOCH', $i + 1);

        if ($i < $masters) {
            $redis->command('CLUSTER', 'ADDSLOTS', int($i * $share)
                            .. int(($i + 1) * $share) - 1);
        }

        if ($i) {
            $first->connect(die => 1)->command('CLUSTER', 'MEET', '127.0.0.1',
                                    $opt{meet} ? $opt{meet}[$i]
                                               : $server->{port},
                                    $server->{bus} || ());
        }
    }

    $self->wait_known($n);

    for my $i ($masters .. $n - 1) {
        my $id = $self->id($self->{servers}[$i % $masters]);

        wait_for(sub {
            my $re = $self->{servers}[$i]->connect->command('CLUSTER',
                                                         'REPLICATE', $id);
            return $re eq 'OK';
        }, 20) or die "CLUSTER REPLICATE\n";
    }

    $self->wait_ok;

    if ($n > $masters) {
        wait_for(sub {
            return !grep {
                my $info = $_->connect->command('INFO', 'replication');
                $info !~ /master_link_status:up/;
            } @{$self->{servers}}[$masters .. $n - 1];
        }, 20) or die "replicas are not in step\n";
    }

    $t->set(CLUSTER => join(' ', map { "server redis://127.0.0.1:$_->{port};" }
                                     @{$self->{servers}}));

    return $self;
}


sub alive {
    my ($self) = @_;

    return grep { $_->{pid} } @{$self->{servers}};
}


sub wait_known {
    my ($self, $n) = @_;

    wait_for(sub {
        return !grep {
            my $nodes = $_->connect->command('CLUSTER', 'NODES');
            my @known = grep { !/handshake|noaddr/ } split /\n/, $nodes;
            @known < $n;
        } $self->alive;
    }, 30) or die "the nodes do not meet\n";
}


sub wait_ok {
    my ($self) = @_;

    wait_for(sub {
        return !grep {
            my $info = $_->connect->command('CLUSTER', 'INFO');
            $info !~ /cluster_state:ok/ || $info !~ /slots_ok:16384/;
        } $self->alive;
    }, 30) or die "the cluster is not ok\n";

    return $self;
}


sub id { $_[1]->connect(die => 1)->command('CLUSTER', 'MYID') }


sub slot {
    my ($self, $key) = @_;

    my ($server) = $self->alive;

    return $server->connect(die => 1)->command('CLUSTER', 'KEYSLOT', $key);
}


# slot_of($key): the same, computed here; a function

my @crc16 = map {
    my $crc = $_ << 8;
    $crc = $crc & 0x8000 ? ($crc << 1) ^ 0x1021 : $crc << 1 for 1 .. 8;
    $crc & 0xffff;
} 0 .. 255;


sub slot_of {
    my ($key) = @_;

    my $crc = 0;

    $crc = (($crc << 8) & 0xffff) ^ $crc16[($crc >> 8) ^ ord] for split //, $key;

    return $crc % 16384;
}


sub master {
    my ($self, $slot) = @_;

    my ($server) = $self->alive;

    for my $range (@{$server->connect(die => 1)->command('CLUSTER', 'SLOTS')})
    {
        next if $slot < $range->[0] || $slot > $range->[1];

        return (grep { $_->{port} == $range->[2][1] }
                     @{$self->{servers}})[0];
    }

    die "nobody has slot $slot\n";
}


sub key_on {
    my ($self, $server, $head) = @_;

    my $slots = $server->connect(die => 1)->command('CLUSTER', 'SLOTS');
    my $redis = $server->connect(die => 1);

    for my $i (1 .. 1000) {
        my $slot = $redis->command('CLUSTER', 'KEYSLOT', "$head$i");

        for my $range (@$slots) {
            return "$head$i" if $slot >= $range->[0] && $slot <= $range->[1]
                                && $range->[2][1] == $server->{port};
        }
    }

    die "no such key\n";
}


sub sum {
    my ($self, @command) = @_;

    my $sum = 0;

    for my $server ($self->alive) {
        my $redis = $server->connect(die => 1);
        next if $redis->command('ROLE')->[0] ne 'master';
        $sum += $redis->command(@command);
    }

    return $sum;
}


sub begin_move {
    my ($self, $slot, $to) = @_;

    my $from = $self->master($slot);

    $to->connect(die => 1)->command('CLUSTER', 'SETSLOT', $slot, 'IMPORTING',
                                    $self->id($from));
    $from->connect(die => 1)->command('CLUSTER', 'SETSLOT', $slot, 'MIGRATING',
                                      $self->id($to));
    return $from;
}


sub move_keys {
    my ($self, $slot, $to) = @_;

    my $redis = $self->master($slot)->connect(die => 1);

    while (1) {
        my $keys = $redis->command('CLUSTER', 'GETKEYSINSLOT', $slot, 100);
        last if !@$keys;

        $redis->command('MIGRATE', '127.0.0.1', $to->{port}, '', 0, 5000,
                        'KEYS', @$keys);
    }
}


# A server claims a slot with an epoch above all that it knows of.  One that
# another server has and this one has not heard of takes the slot away from it
# again, and then each of the two says that the other one has it.

sub end_move {
    my ($self, $slot, $to) = @_;

    my $id = $self->id($to);
    my $from = $self->master($slot);

    wait_for(sub {
        my $known = $self->epoch($to, 'current');
        return !grep { $self->epoch($_, 'my') > $known } $self->alive;
    }, 30) or die "the servers do not tell each other their epochs\n";

    for my $server ($to, $from) {
        $server->connect(die => 1)->command('CLUSTER', 'SETSLOT', $slot,
                                            'NODE', $id);
    }
}


sub epoch {
    my ($self, $server, $which) = @_;

    my ($epoch) = $server->connect(die => 1)->command('CLUSTER', 'INFO')
        =~ /^cluster_${which}_epoch:(\d+)/m;

    return $epoch;
}


1;
