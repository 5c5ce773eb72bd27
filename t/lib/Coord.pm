package Coord;

# Copyright (C) ngx_coord_module contributors

=head1 NAME

Coord - starts nginx nodes, Redis and origins for one test

=head1 SYNOPSIS

    use Coord;                         # strict, warnings, Test::More as well

    my $t = Coord->new;
    my $redis = $t->redis;             # real Redis; %%REDIS%% stands for it
    my $a = $t->node(name => 'a', workers => 2, http => <<'EOF')->start;
        coord_store main { server %%REDIS%%; }
        coord_limit_req_zone $arg_k zone=one:1m rate=1r/s;
        server {
            listen 127.0.0.1:%%PORT%%;
            location / { coord_limit_req zone=one; empty_gif; }
        }
    EOF

    is($a->get('/?k=1')->status, 200, 'first');
    is($a->get('/?k=1')->status, 429, 'second');
    my @all = $a->parallel(200, '/?k=2');

    done_testing();                    # stops all, adds the two checks below

C<done_testing> (the one of Coord) stops everything and adds two tests: every
process ended in time, and no log holds [alert], [crit], [emerg], a sanitizer
report, "exited on signal" or "open socket".  Without C<done_testing> the same
is checked at exit and makes the test file fail.

=head1 THE TEST

    Coord->new(name => value, ..)  log_level, time_limit (seconds, 300)
    $t->node(%opt)         a node, not started; options:
        name, workers (1), log_level (info), port, vars => {..},
        http => text       the inside of http {}
        server => text     the inside of server {}, which listens on %%PORT%%
        main => text       before http {}
        conf => text       all of nginx.conf
        plain => 1         without load_module
        Added where the text has none: load_module, user, worker_processes,
        pid, error_log, events, access_log, temp paths.
    $t->conf_error(%opt)   what "nginx -t" prints for such a node, '' if good
    $t->redis(@conf)       Coord::Redis->start(conf lines), a real server:
                           $redis->{port}, {pid}, connect, watch (what it is
                           asked for: Coord::Watch), stop($sig), run
                           (again, with the data that it has stored);
                           gives %%REDIS%% (redis://127.0.0.1:port),
                           %%REDIS_PORT%%, %%REDIS_SOCKET%%; the second one
                           %%REDIS_2%%, %%REDIS_2_PORT%% ..
    $t->fake_redis(%opt)   Coord::FakeRedis; gives %%FAKE%%, %%FAKE_PORT%% ..
    $t->origin(%opt)       Coord::Origin; gives %%ORIGIN%% (127.0.0.1:port)
    $t->gateway(protocol => 'fastcgi' | 'uwsgi' | 'scgi', %opt)
                           Coord::Gateway; gives %%FASTCGI%%, %%UWSGI%%, ..
    $t->set(NAME => value) defines %%NAME%%
    $t->dir, $t->file(name), $t->binary, $t->module
    $t->parallel(\@requests, timeout => 30)   over several nodes; a request
                           is $node->req($path, %opt)
    $t->wait_for(sub {..}, $seconds)
    $t->rest($seconds)     sleeps by that clock
    $t->in_time($seconds, sub { my ($n) = @_; .. })   the result of the first
                           call that took no longer: for what expires
    $t->ran                seconds by a clock that stands still while the
                           machine does (Coord::Clock): for what is to be done
                           within a time; wait_for and the timeouts go by it
    $t->at_end(sub {..})   called before the log check
    $t->track($pid)        a process of the test, stopped at the end

=head1 A NODE

    start stop quit($seconds) destroy running pid dir file(name)
    port port(2)           %%PORT%%, %%PORT_2%%; url($path)
    workers workers(all => 1)       pids; all: also those shutting down
    reload                 HUP, waits for new workers, returns the old pids
    wait_gone($seconds, @pids)
    upgrade                USR2, returns pids of the old and the new master
    kill_worker($signal, $pid)      default KILL; waits for the successor
    all_workers($path, sub {..})    all answer as is wanted; X-Pid tells who
    hold_worker($pid)      STOP, waits until it stands; returns the pid
    hold_crowd($first, @paths)      requests that it finds in one turn
    signal(name)           to the master
    conf(%opt)             a new nginx.conf, for reload
    check                  nginx -t: (good, output)
    log access_log log_lines(qr//) wait_log(qr//, $seconds)
    allow(qr//)            lines the check at the end is to accept
    get($path, %opt) post($path, $body, %opt) request($method, $path, %opt)
        %opt: headers => {..} | [..], body, host, timeout, local => 127.0.0.2
    parallel($n, $path, %opt)       $n at once, list of responses
    connect                a connection by hand, below
    h2($path, @curl_args)  HTTP/2; Coord::HTTP2 for streams by hand

Response: status, body, header(name), headers (hash of arrays, lower case),
head (bytes), time and ran (seconds), complete, error ('' if none); status is 0 without a reply.

Connection: send(bytes), response(method, timeout), request(%opt) (keeps
alive), read($seconds) (undef: nothing, '': closed), closed($seconds), close,
reset (RST).

Tokens in texts: %%PORT%% %%PORT_x%% %%NODEDIR%% %%TESTDIR%% %%NAME%%, and
what redis, fake_redis, origin, set and vars define.

=head1 ENVIRONMENT

TEST_NGINX_BINARY (default: the installed one), TEST_MODULE (default: the one
in build/), REDIS_SERVER (default: redis-server, else valkey-server),
TEST_KEEP=1 keeps the directory, TEST_KEEP=fail only after a failure,
COORD_SEED=number, of what rand() gives; a test that fails tells its own,
TEST_VALGRIND=1, TEST_LOG_LEVEL=debug: all nodes log at that level, whatever the
test asks for.

=cut

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Path qw(remove_tree);
use File::Temp qw(tempdir);

# before Test::More keeps STDOUT
use Coord::Again;
BEGIN { Coord::Again::allow() }

use Test::More ();
use Time::HiRes ();

use Coord::Clock;
use Coord::FakeRedis;
use Coord::Gateway;
use Coord::HTTP;
use Coord::Node;
use Coord::Origin;
use Coord::Util qw(kill_and_wait);

my $owner = $$;
my @tests;

my $seed = defined $ENV{COORD_SEED} ? $ENV{COORD_SEED} : int(rand(2 ** 31));
srand($seed);


sub import {
    my $caller = caller;

    strict->import;
    warnings->import;

    no strict 'refs';
    no warnings 'redefine';

    for my $name (@Test::More::EXPORT) {
        next if $name !~ /^\w+$/ || $name eq 'done_testing';
        *{"${caller}::$name"} = \&{"Test::More::$name"};
    }

    *{"${caller}::TODO"} = \${"${caller}::TODO"};
    *{"${caller}::done_testing"} = \&done_testing;
}


sub new {
    my ($class, %opt) = @_;

    my $root = abs_path(dirname(__FILE__) . '/../..');

    my $module = $ENV{TEST_MODULE};
    $module = "$root/build/ngx_http_coord_module.so" if !defined $module;

    my $binary = $ENV{TEST_NGINX_BINARY};
    ($binary) = grep { -x }
                map { "$_/nginx" } split(/:/, $ENV{PATH}), '/usr/sbin',
                '/usr/local/sbin' if !$binary;

    my $self = bless {
        dir => tempdir('coord-XXXXXXXX', TMPDIR => 1),
        nodes => [], servers => [], pids => [], at_end => [], vars => {},
        binary => $binary, module => -e $module ? $module : '',
        log_level => $opt{log_level},
    }, $class;

    # workers may run as another user
    chmod 0755, $self->{dir};
    $self->{vars}{TESTDIR} = $self->{dir};

    push @tests, $self;

    Coord::Clock::start("$self->{dir}/clock") if @tests == 1;

    $SIG{$_} = sub { exit 1 } for qw(INT TERM HUP);
    $SIG{PIPE} = 'IGNORE';
    $SIG{ALRM} = sub {
        Test::More::fail('the test ends within its time limit');
        exit 1;
    };
    alarm($opt{time_limit} || 300);

    return $self;
}


sub dir { $_[0]{dir} }
sub file { "$_[0]{dir}/$_[1]" }
sub binary { $_[0]{binary} }
sub module { $_[0]{module} }
sub vars { $_[0]{vars} }
sub wait_for { shift; return Coord::Util::wait_for(@_) }
sub ran { return Coord::Clock::ran() }
sub at_end { push @{$_[0]{at_end}}, $_[1] }
sub track { my $self = shift; push @{$self->{pids}}, @_ }


# until so many seconds have passed in which the others could do something, too

sub rest {
    my ($self, $seconds) = @_;

    my $end = $self->ran + $seconds;
    Time::HiRes::sleep(0.01) while $self->ran < $end;
}


# what expires takes part in: calls $code with 1, 2, .. until that took no longer
# than so many seconds, and returns what the last call did

sub in_time {
    my ($self, $seconds, $code) = @_;

    my @got;

    for my $try (1 .. 10) {
        my $end = Time::HiRes::time() + $seconds;

        @got = $code->($try);
        last if Time::HiRes::time() <= $end;
    }

    return @got;
}


sub set {
    my ($self, %vars) = @_;

    $self->{vars}{$_} = $vars{$_} for keys %vars;

    return $self;
}


sub node {
    my ($self, %opt) = @_;

    $opt{name} = 'node' . (1 + @{$self->{nodes}}) if !defined $opt{name};
    $opt{log_level} ||= $self->{log_level};

    my $node = Coord::Node->new(%opt, test => $self,
                                dir => "$self->{dir}/$opt{name}");
    push @{$self->{nodes}}, $node;

    return $node;
}


sub conf_error {
    my ($self, %opt) = @_;

    my $name = 'conf' . ++$self->{confs};
    my $node = Coord::Node->new(%opt, name => $name, test => $self,
                                dir => "$self->{dir}/$name");
    my ($good, $out) = $node->check;

    return $good ? '' : $out;
}


sub redis {
    my ($self, @conf) = @_;

    require Coord::Redis;

    my $redis = Coord::Redis->start_in($self->_subdir('redis'), @conf);

    push @{$self->{servers}}, $redis;
    my $name = $self->_define('REDIS', 'redis://127.0.0.1:', $redis->{port});
    $self->{vars}{"${name}_SOCKET"} = $redis->{socket};

    return $redis;
}


sub fake_redis {
    my ($self, %opt) = @_;

    my $fake = Coord::FakeRedis->start(dir => $self->_subdir('fake'), %opt);

    push @{$self->{servers}}, $fake;
    $self->_define('FAKE', "redis://127.0.0.1:", $fake->port);

    return $fake;
}


sub origin {
    my ($self, %opt) = @_;

    my $origin = Coord::Origin->start(dir => $self->_subdir('origin'), %opt);

    push @{$self->{servers}}, $origin;
    $self->_define('ORIGIN', '127.0.0.1:', $origin->port);

    return $origin;
}


sub gateway {
    my ($self, %opt) = @_;

    my $origin = Coord::Gateway->start(
        dir => $self->_subdir($opt{protocol}), %opt);

    push @{$self->{servers}}, $origin;
    $self->_define(uc $opt{protocol}, '127.0.0.1:', $origin->port);

    return $origin;
}


sub _subdir {
    my ($self, $kind) = @_;

    my $dir = "$self->{dir}/$kind" . ++$self->{count}{$kind};
    mkdir $dir or die "cannot create $dir: $!";

    return $dir;
}


# the first of a kind is %%KIND%%, the second %%KIND_2%%

sub _define {
    my ($self, $kind, $prefix, $port) = @_;

    my $n = $self->{count}{lc $kind};
    my $name = $n > 1 ? "${kind}_$n" : $kind;

    $self->{vars}{$name} = "$prefix$port";
    $self->{vars}{"${name}_PORT"} = $port;

    return $name;
}


sub parallel {
    my ($self, $requests, %opt) = @_;

    return Coord::HTTP::parallel($requests, %opt);
}


# stops all and returns what went wrong: two lists of lines

sub finish {
    my ($self) = @_;

    return @{$self->{finished}} if $self->{finished};

    my (@late, @bad);
    $self->{finished} = [\@late, \@bad];

    for my $node (@{$self->{nodes}}) {
        push @late, "node $node->{name} had to be killed" if !$node->stop;
    }

    kill_and_wait('TERM', 5, @{$self->{pids}});

    # a Redis whose data nobody wants any more need not write them, nor end in turn

    for my $server (@{$self->{servers}}) {
        eval { $server->stop('KILL'); 1 } or push @late, "$server: $@";
    }

    $_->() for @{$self->{at_end}};

    for my $node (@{$self->{nodes}}) {
        push @bad, map { "$node->{name}: $_" } $node->bad_lines;
    }

    return @{$self->{finished}};
}


sub done_testing {
    my @late = map { @{($_->finish)[0]} } @tests;
    my @bad = map { @{($_->finish)[1]} } @tests;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    Test::More::ok(!@late, 'all processes ended in time');
    Test::More::diag($_) for @late;

    Test::More::ok(!@bad, 'no alerts in the logs');
    Test::More::diag($_) for @bad;

    Test::More::done_testing(@_);

    $_->{checked} = 1 for @tests;
}


END {
    if ($$ == $owner) {
        my $status = $?;

        alarm 0;

        for my $self (@tests) {
            my ($late, $bad) = $self->finish;

            if (!$self->{checked} && (@$late || @$bad)) {
                print STDERR "# $_\n" for @$late, @$bad;
                $status ||= 1;
            }

            Coord::Again::stood(Coord::Clock::stood());
            Coord::Clock::stop();

            my $failed = $status || !Test::More->builder->is_passing;
            my $keep = $ENV{TEST_KEEP} || '';

            print STDERR "# COORD_SEED=$seed\n" if $failed;

            if ($keep && ($keep ne 'fail' || $failed)) {
                print STDERR "# kept $self->{dir}\n";

            } else {
                remove_tree($self->{dir});
            }
        }

        $? = $status;
    }
}


1;
