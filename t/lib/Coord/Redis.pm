package Coord::Redis;

# Copyright (C) ngx_coord_module contributors

# A small RESP2 client, and a real server of its own for a test: $REDIS_SERVER,
# else redis-server, else valkey-server.
#
#   my $server = Coord::Redis->start('maxmemory 10mb');
#   my $redis = $server->connect;
#   $redis->command('SET', 'k', 'v');          'OK'
#   $redis->pipeline([ 'GET', 'k' ], ...);     a list, one value per command
#
# Values: a string or number, undef for nil, an array reference, or a
# Coord::Redis::Error object.  With die => 1 an error reply dies instead.

use strict;
use warnings;

use File::Path qw(remove_tree);
use File::Temp qw(tempdir);
use IO::Socket::INET;
use IO::Socket::UNIX;
use Time::HiRes qw(sleep time);

use Coord::Util qw(free_port);

my @servers;


# new(port => .., [host => ..] | socket => path, die => 0|1, timeout => s)

sub new {
    my ($class, %opt) = @_;

    my $sock = $opt{socket}
        ? IO::Socket::UNIX->new(Peer => $opt{socket})
        : IO::Socket::INET->new(PeerAddr => $opt{host} || '127.0.0.1',
                                PeerPort => $opt{port});

    die 'connect to ' . ($opt{socket} || $opt{port}) . ": $!\n" if !$sock;

    return bless { sock => $sock, die => $opt{die}, buf => '',
                   timeout => $opt{timeout} || 30 }, $class;
}


sub command {
    my ($self, @argv) = @_;

    $self->send([ @argv ]);

    return $self->read;
}


sub pipeline {
    my ($self, @commands) = @_;

    $self->send(@commands);

    return map { $self->read } @commands;
}


# send([ argv ], ...): writes commands; each needs a read() later

sub send {
    my ($self, @commands) = @_;

    my $out = '';

    for my $argv (@commands) {
        $out .= '*' . @$argv . "\r\n";
        $out .= '$' . length($_) . "\r\n$_\r\n" for @$argv;
    }

    local $SIG{PIPE} = 'IGNORE';

    while (length $out) {
        my $n = syswrite($self->{sock}, $out);
        die "write to Redis: $!\n" if !defined $n;
        substr($out, 0, $n, '');
    }
}


sub read {
    my ($self) = @_;

    my $value = $self->value;

    if ($self->{die} && ref $value && $value->isa('Coord::Redis::Error')) {
        die "$$value\n";
    }

    return $value;
}


sub value {
    my ($self) = @_;

    $self->fill until $self->{buf} =~ s/^(.)([^\r\n]*)\r\n//s;
    my ($type, $rest) = ($1, $2);

    return $rest if $type eq '+' || $type eq ':';
    return bless(\$rest, 'Coord::Redis::Error') if $type eq '-';

    if ($type eq '$') {
        return undef if $rest < 0;

        $self->fill while length $self->{buf} < $rest + 2;
        my $str = substr($self->{buf}, 0, $rest);
        substr($self->{buf}, 0, $rest + 2, '');

        return $str;
    }

    if ($type eq '*') {
        return undef if $rest < 0;
        return bless([ map { $self->value } 1 .. $rest ],
                     'Coord::Redis::Array');
    }

    die "unexpected RESP type \"$type\"\n";
}


sub fill {
    my ($self) = @_;

    my $set = '';
    vec($set, fileno($self->{sock}), 1) = 1;

    select($set, undef, undef, $self->{timeout})
        or die "no reply from Redis in $self->{timeout} s\n";

    sysread($self->{sock}, $self->{buf}, 65536, length $self->{buf})
        or die "Redis closed the connection\n";
}


sub close {
    my ($self) = @_;

    CORE::close($self->{sock});
}


# start(conf lines ...): a server on a free loopback port, without
# persistence, in a directory of its own; lines that begin with "--" are
# arguments.  When the process ends it is stopped
# and the directory removed, also that of a server that was stopped before.

sub start {
    my ($class, @conf) = @_;

    my $dir = tempdir('coord-redis-XXXXXX', TMPDIR => 1);
    my $self = $class->start_in($dir, @conf);

    $self->{own} = 1;

    return $self;
}


# start_in(directory, conf lines ...): the same, the directory is the caller's

sub start_in {
    my ($class, $dir, @conf) = @_;

    my $port = free_port();
    my @args = grep { /^--/ } @conf;
    @conf = grep { !/^--/ } @conf;

    open(my $fh, '>', "$dir/redis.conf") or die "$dir/redis.conf: $!";
    print $fh map { "$_\n" } 'bind 127.0.0.1', "port $port", "dir $dir",
        "unixsocket $dir/redis.sock", 'save ""', 'appendonly no',
        'daemonize no', "logfile $dir/redis.log", @conf;
    CORE::close($fh) or die "$dir/redis.conf: $!";

    my $self = bless { dir => $dir, port => $port, owner => $$, args => \@args,
                       socket => "$dir/redis.sock" }, 'Coord::Redis::Server';
    push @servers, $self;
    $self->run;

    return $self;
}


package Coord::Redis::Server;

use strict;
use warnings;

use POSIX qw(WNOHANG);

use Coord::Util qw(stopped wait_for);


# run(): starts the process; after stop() again, on the same port and with
# what it has stored.  Dies if it does not answer.  run(qr//): with an answer to
# PING that matches, while it loads.

sub run {
    my ($self, $answer) = @_;

    $answer ||= qr/^(?!LOADING)/;

    my $pid = fork();
    die "fork: $!" if !defined $pid;

    if ($pid == 0) {
        no warnings 'exec';

        exec($_, "$self->{dir}/redis.conf", @{$self->{args}})
            for $ENV{REDIS_SERVER} || ('redis-server', 'valkey-server');
        POSIX::_exit(127);
    }

    $self->{pid} = $pid;

    for (1 .. 3000) {
        return if eval { $self->connect->command('PING') =~ $answer };
        last if waitpid($pid, WNOHANG) == $pid;
        Time::HiRes::sleep(0.01);
    }

    $self->stop;
    die "Redis does not start:\n"
        . Coord::Util::slurp("$self->{dir}/redis.log");
}


sub connect {
    my ($self, %opt) = @_;

    return Coord::Redis->new(port => $self->{port}, %opt);
}


# watch(): what it is asked for from now on, Coord::Watch

sub watch {
    require Coord::Watch;

    return Coord::Watch->new(@_);
}


# freeze(), thaw(): it is there but does not answer.  It may run on for a moment
# on another core, so waits until it stands

sub freeze {
    my ($self) = @_;

    kill 'STOP', $self->{pid};

    return wait_for(sub { stopped($self->{pid}) }, 20)
           || die "Redis does not stop\n";
}

sub thaw { kill 'CONT', $_[0]{pid} }


# stop($signal): ends the process, by default with TERM, and waits for it

sub stop {
    my ($self, $signal) = @_;

    my $pid = delete $self->{pid} or return;

    kill 'CONT', $pid;
    kill $signal || 'TERM', $pid;

    for (1 .. 2000) {
        return if waitpid($pid, WNOHANG) != 0;
        Time::HiRes::sleep(0.01);
    }

    kill 'KILL', $pid;
    waitpid($pid, 0);
}


sub END {
    local ($?, $!);

    for my $server (@servers) {
        next if $server->{owner} != $$;

        $server->stop;
        File::Path::remove_tree($server->{dir}) if $server->{own};
    }
}


package Coord::Redis::Error;

use overload '""' => sub { ${ $_[0] } }, fallback => 1;


package Coord::Redis::Array;


1;
