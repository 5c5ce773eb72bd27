package Coord::Sentinel;

# Copyright (C) ngx_coord_module contributors

# A master, a replica and sentinels for a test.
#
#   my $s = Coord::Sentinel->start($t, sentinels => 3, conf => [ .. ],
#                                  sentinel_conf => [ .. ]);
#   $s->master, $s->replica              Coord::Redis::Server, as things are now
#   $s->{servers}, $s->{sentinels}       all of them
#   $s->lines                            "server redis://..;" of all sentinels
#   $s->failed_over($seconds)            waits until the sentinels agree on
#                                        another master than at the last call
#   $s->ask($n)                          the port of the master, says sentinel n

use strict;
use warnings;

use Coord::Redis;
use Coord::Util qw(wait_for);


sub start {
    my ($class, $t, %opt) = @_;

    my @conf = ('repl-diskless-sync-delay 0', 'repl-ping-replica-period 1',
                @{$opt{conf} || []});
    my $master = $t->redis(@conf);
    my $replica = $t->redis(@conf, "replicaof 127.0.0.1 $master->{port}");

    my $self = bless { servers => [ $master, $replica ], sentinels => [],
                       was => $master->{port} }, $class;

    wait_for(sub { $replica->connect->command('INFO', 'replication')
                       =~ /master_link_status:up/ }, 10)
        or die "the replica does not follow\n";

    for my $n (1 .. $opt{sentinels} || 3) {
        push @{$self->{sentinels}}, $t->redis(
            "sentinel monitor mymaster 127.0.0.1 $master->{port} "
            . ($opt{quorum} || 2),
            'sentinel down-after-milliseconds mymaster 500',
            'sentinel failover-timeout mymaster 3000',
            @{$opt{sentinel_conf} || []}, '--sentinel');
    }

    wait_for(sub { $self->known }, 20) or die "sentinels do not meet\n";

    return $self;
}


# all sentinels know all others and the replica

sub known {
    my ($self) = @_;

    my $others = @{$self->{sentinels}} - 1;

    for my $sentinel (@{$self->{sentinels}}) {
        my $info = $sentinel->connect->command('INFO', 'sentinel');

        return 0 if $info !~ /status=ok,address=\S+,slaves=1,sentinels=(\d+)/
                    || $1 != $others + 1;
    }

    return 1;
}


sub ask {
    my ($self, $n) = @_;

    my $got = eval {
        $self->{sentinels}[$n || 0]->connect->command(
            'SENTINEL', 'GET-MASTER-ADDR-BY-NAME', 'mymaster')
    };

    return ref $got ? $got->[1] : 0;
}


sub master {
    my ($self) = @_;

    my ($port) = grep { $_ } map { $self->ask($_) } 0 .. $#{$self->{sentinels}};

    return (grep { $_->{port} == $port } @{$self->{servers}})[0];
}


sub replica {
    my ($self) = @_;

    my $master = $self->master;

    return (grep { $_ != $master } @{$self->{servers}})[0];
}


sub failed_over {
    my ($self, $seconds) = @_;

    my @alive = grep { $self->{sentinels}[$_]{pid} }
                     0 .. $#{$self->{sentinels}};

    return if !wait_for(sub {
        !grep { my $p = $self->ask($_); !$p || $p == $self->{was} } @alive
    }, $seconds);

    $self->{was} = $self->ask($alive[0]);

    return 1;
}


sub lines {
    my ($self, $scheme) = @_;

    return join ' ', map { "server redis://127.0.0.1:$_->{port};" }
                         @{$self->{sentinels}};
}


1;
