package Coord::Node;

# Copyright (C) ngx_coord_module contributors

# One nginx: its directory, configuration, processes and log.  Made by
# $t->node(); the methods are listed in Coord.pm.

use strict;
use warnings;

use POSIX ();

use Coord::HTTP;
use Coord::Util qw(alive children free_port kill_and_wait sleeps slurp spew stopped
                   wait_dead wait_for);


sub new {
    my ($class, %opt) = @_;

    my $self = bless {
        test => $opt{test}, name => $opt{name}, dir => $opt{dir},
        workers => $opt{workers} || 1,
        log_level => $ENV{TEST_LOG_LEVEL} || $opt{log_level} || 'info',
        debug => ($opt{log_level} || '') eq 'debug',
        plain => $opt{plain}, vars => $opt{vars} || {}, ports => {},
        masters => [], allow => [], kills => 0,
    }, $class;

    mkdir $self->{dir} or die "cannot create $self->{dir}: $!";
    $self->{ports}{PORT} = $opt{port} || free_port();
    $self->conf(%opt);

    return $self;
}


sub name { $_[0]{name} }
sub dir { $_[0]{dir} }
sub file { "$_[0]{dir}/$_[1]" }
sub url { "http://127.0.0.1:$_[0]{ports}{PORT}" . ($_[1] || '/') }


# port(), port(2): what %%PORT%% and %%PORT_2%% stand for

sub port {
    my ($self, $n) = @_;

    my $name = defined $n ? "PORT_$n" : 'PORT';

    return $self->{ports}{$name} ||= free_port();
}


# conf(conf|http|server => text, main => text): writes nginx.conf anew

sub conf {
    my ($self, %opt) = @_;

    my $text = $opt{conf};

    if (!defined $text) {
        my $http = defined $opt{http} ? $opt{http} : '';
        my $main = defined $opt{main} ? $opt{main} : '';
        my $server = defined $opt{server}
            ? "server {\n    listen 127.0.0.1:%%PORT%%;\n$opt{server}\n}\n"
            : '';

        $text = "$main\nhttp {\n$http\n$server}\n";
    }

    spew("$self->{dir}/nginx.conf", $self->_complete($text));

    return $self;
}


# adds what every configuration here needs and what the text does not have

sub _complete {
    my ($self, $text) = @_;

    my $module = $self->{test}->module;
    my $head = '';

    if (!$self->{plain} && $module && $text !~ /load_module/) {
        $head .= "load_module $module;\n";
    }

    $head .= "user root;\n" if $> == 0 && $text !~ /^\s*user\s/m;
    $head .= "worker_processes $self->{workers};\n"
        if $text !~ /worker_processes/;

    # a new binary after USR2 gets no other variables
    $head .= "env ASAN_OPTIONS;\nenv UBSAN_OPTIONS;\n"
        if $ENV{TEST_SANITIZE};

    $head .= "pid %%NODEDIR%%/nginx.pid;\n" if $text !~ /^\s*pid\s/m;
    $head .= "error_log %%NODEDIR%%/error.log $self->{log_level};\n";
    $head .= "worker_shutdown_timeout 60s;\n"
        if $text !~ /worker_shutdown_timeout/;
    $head .= "events { worker_connections 2048; }\n"
        if $text !~ /^\s*events\s/m;

    my $http = "    access_log %%NODEDIR%%/access.log;\n";
    $http = '' if $text =~ /^\s*access_log\s/m;

    for (qw(client_body proxy fastcgi uwsgi scgi)) {
        $http .= "    ${_}_temp_path %%NODEDIR%%/$_;\n";
    }

    $text =~ s/^(\s*http\s*\{\s*\n)/$1$http/m;
    $text = $head . $text;

    my $vars = $self->{test}->vars;

    1 while $text =~ s/%%(\w+)%%/$self->_var($1, $vars)/e;

    return $text;
}


sub _var {
    my ($self, $name, $vars) = @_;

    return $self->port if $name eq 'PORT';
    return $self->port($1) if $name =~ /^PORT_(\w+)$/;
    return $self->{dir} if $name eq 'NODEDIR';
    return $self->{name} if $name eq 'NAME';
    return $self->{vars}{$name} if defined $self->{vars}{$name};
    return $vars->{$name} if defined $vars->{$name};

    die "nothing to put for %%$name%%";
}


sub _command {
    my ($self, @args) = @_;

    my @cmd = ($self->{test}->binary, '-p', "$self->{dir}/",
               '-c', "$self->{dir}/nginx.conf",
               '-e', "$self->{dir}/error.log", @args);

    if ($ENV{TEST_VALGRIND}) {
        unshift @cmd, 'valgrind', '-q', '--trace-children=yes',
            "--log-file=$self->{dir}/valgrind.%p";
    }

    return @cmd;
}


# runs nginx and returns its wait status and what it printed

sub _run {
    my ($self, @args) = @_;

    my $out = "$self->{dir}/stdout";
    my $pid = fork();
    die "fork: $!" if !defined $pid;

    if ($pid == 0) {
        open(STDIN, '<', '/dev/null');
        open(STDOUT, '>', $out);
        open(STDERR, '>&', \*STDOUT);

        # nginx takes it for the sockets of an older master
        delete $ENV{NGINX};

        local $ENV{ASAN_OPTIONS} = join ':', 'detect_leaks=0',
            "log_path=$self->{dir}/sanitizer", $ENV{ASAN_OPTIONS} || ();
        local $ENV{UBSAN_OPTIONS} = join ':', 'print_stacktrace=1',
            "log_path=$self->{dir}/sanitizer", $ENV{UBSAN_OPTIONS} || ();

        { no warnings 'exec'; exec $self->_command(@args); }
        POSIX::_exit(127);
    }

    waitpid($pid, 0);

    return ($?, slurp($out));
}


# check(): nginx -t; returns true when the configuration is good, in list
# context also what was printed

sub check {
    my ($self) = @_;

    my ($status, $out) = $self->_run('-t');

    return wantarray ? ($status == 0, $out) : $status == 0;
}


sub start {
    my ($self) = @_;

    unlink "$self->{dir}/nginx.pid";

    my ($status, $out) = $self->_run();
    my $limit = $ENV{TEST_VALGRIND} ? 60 : 20;

    my $pid = $status == 0
              && wait_for(sub { $self->_read_pid
                                    && $self->workers >= $self->{workers} },
                              $limit)
              && $self->_read_pid;

    if (!$pid) {
        die "node $self->{name} did not start:\n$out"
            . slurp("$self->{dir}/error.log");
    }

    push @{$self->{masters}}, $pid;

    return $self;
}


sub _read_pid {
    my ($self, $suffix) = @_;

    my $text = slurp("$self->{dir}/nginx.pid" . ($suffix || ''));

    return $text =~ /^(\d+)\s*$/ && alive($1) ? $1 : undef;
}


sub pid { $_[0]->_read_pid }


# workers(): pids of the workers that take requests; workers(all => 1): of
# those that are shutting down as well

sub workers {
    my ($self, %opt) = @_;

    my $master = $opt{master} || $self->_read_pid or return;

    return map { $_->[0] }
           grep { $_->[1] =~ /worker process|valgrind/
                  && ($opt{all} || $_->[1] !~ /shutting down/) }
           children($master);
}


sub _all_pids {
    my ($self) = @_;

    my @masters = grep { alive($_) } @{$self->{masters}};

    return (@masters, map { map { $_->[0] } children($_) } @masters);
}


# reload(): HUP; waits until new workers have taken over and the old ones take
# no more requests; returns the pids of these, which may still be busy, see
# wait_gone()

sub reload {
    my ($self, %opt) = @_;

    my %old = map { $_ => 1 } $self->workers(all => 1);

    # not the number running: after a reload the old ones still count for a
    # while
    my $count = $self->{workers};

    kill 'HUP', $self->pid;

    return keys %old if $opt{no_wait};

    # the old ones take requests until they have read what the master says
    wait_for(sub {
        my @now = $self->workers;
        return !(grep { $old{$_} && !stopped($_) } @now)
               && $count <= grep { !$old{$_} } @now;
    }, 20)
        or die "node $self->{name}: no new workers after a reload\n"
               . slurp("$self->{dir}/error.log");

    return keys %old;
}


# wait_gone($seconds, @pids): true when none of them is left

sub wait_gone {
    my ($self, $timeout, @pids) = @_;

    return wait_dead($timeout, @pids);
}


# upgrade(): USR2; returns the pids of the old and the new master

sub upgrade {
    my ($self) = @_;

    my $old = $self->pid;
    kill 'USR2', $old;

    my $new = wait_for(sub {
        my $pid = $self->_read_pid;
        return $pid && $pid != $old && $self->workers && $pid;
    }, 20) or die "node $self->{name}: no new binary\n"
                  . slurp("$self->{dir}/error.log");

    push @{$self->{masters}}, $new;

    return ($old, $new);
}


# kill_worker($signal, $pid): one worker dies (default KILL, the first) and
# the test accepts that; waits for its successor and returns the dead pid

sub kill_worker {
    my ($self, $signal, $pid) = @_;

    my @before = $self->workers;
    $pid ||= $before[0];

    $self->{kills} = 1;
    kill $signal || 'KILL', $pid;
    wait_dead(10, $pid);

    wait_for(sub { @before <= $self->workers }, 20)
        or die "node $self->{name}: worker $pid has no successor";

    return $pid;
}


# hold_worker($pid): STOP to a worker (the first) that waits for events, and is
# not in the middle of what came before; it may run on for a moment on another
# core, so waits until it stands.  Returns the pid, for kill 'CONT'

sub hold_worker {
    my ($self, $pid) = @_;

    ($pid) = $self->workers if !$pid;

    wait_for(sub { sleeps($pid) }, 20)
        or die "node $self->{name}: worker $pid is busy";

    kill 'STOP', $pid;
    wait_for(sub { stopped($pid) }, 20)
        or die "node $self->{name}: worker $pid does not stop";

    return $pid;
}


# hold_crowd($first, @paths): a connection for each path, that has asked for
# $first and then, while the worker stands still, for its path: it finds all of
# them in one turn of its event loop.  Returns its pid, and the connections

sub hold_crowd {
    my ($self, $first, @paths) = @_;

    my @clients = map { my $c = $self->connect; $c->request(path => $first); $c }
                  @paths;
    my $worker = $self->hold_worker;

    $clients[$_]->send("GET $paths[$_] HTTP/1.1\r\nHost: a\r\n\r\n")
        for 0 .. $#paths;

    return ($worker, @clients);
}


sub signal {
    my ($self, $signal) = @_;

    kill $signal, $self->pid;
}


# stop(): TERM.  quit($seconds): QUIT, lets requests end.  Both return true
# when nginx was gone in time.

sub stop {
    my ($self) = @_;

    return $self->_end('TERM', $self->{stop_timeout} || 20);
}


sub quit {
    my ($self, $timeout) = @_;

    return $self->_end('QUIT', $timeout || 30);
}


sub _end {
    my ($self, $signal, $timeout) = @_;

    my @pids = $self->_all_pids;
    my @masters = grep { alive($_) } @{$self->{masters}};

    kill 'CONT', @pids;

    my $rc = kill_and_wait($signal, $timeout, @masters);

    # orphans of a master that was killed
    $rc = 0 if !kill_and_wait('KILL', 5, @pids) || grep { alive($_) } @pids;
    $self->{masters} = [];

    return $rc;
}


sub running { my ($self) = @_; return scalar $self->pid }


# destroy(): KILL to the master and all workers: the machine is gone

sub destroy {
    my ($self) = @_;

    $self->{kills} = 1;
    kill_and_wait('KILL', 5, $self->_all_pids);
    $self->{masters} = [];
}


# log(): without the debug lines that the test has not asked for

sub log {
    my ($self) = @_;

    my $text = slurp("$self->{dir}/error.log");

    if ($ENV{TEST_LOG_LEVEL} && !$self->{debug}) {
        # some have several lines
        my $entry = qr{\d+/\d\d/\d\d [\d:]+ };
        $text =~ s/^$entry\[debug\].*\n(?:(?!$entry).*\n)*//mg;
    }

    return $text;
}


sub access_log { slurp("$_[0]{dir}/access.log") }


# log_lines(qr/../): the lines of the error log that match

sub log_lines {
    my ($self, $re) = @_;

    return grep { /$re/ } split /\n/, $self->log;
}


# wait_log(qr/../, $seconds): true when such a line appears in time

sub wait_log {
    my ($self, $re, $timeout) = @_;

    return wait_for(sub { scalar $self->log_lines($re) }, $timeout);
}


# allow(qr/../, ..): lines that the check at the end must not count as bad

sub allow {
    my ($self, @re) = @_;

    push @{$self->{allow}}, @re;

    return $self;
}


# bad_lines(): lines of the log and of sanitizers that no test may leave

sub bad_lines {
    my ($self) = @_;

    my @bad;

    for my $line (split /\n/, $self->log) {
        next if $line !~ /\[(?:alert|crit|emerg)\]|Sanitizer|runtime\ error
                          |exited\ on\ signal|open\ socket\ \#/x;
        next if $self->{kills} && $line =~ /exited on signal 9/;
        next if grep { $line =~ $_ } @{$self->{allow}};

        push @bad, $line;
    }

    for my $file (glob "$self->{dir}/{sanitizer,valgrind}.*") {
        my @lines = split /\n/, slurp($file);

        push @bad, "$file:", @lines[0 .. ($#lines < 39 ? $#lines : 39)]
            if @lines;
    }

    return @bad;
}


# requests: the same arguments as Coord::HTTP::request(), the port is known

sub request {
    my ($self, $method, $path, %opt) = @_;

    return Coord::HTTP::request(port => $self->port, method => $method,
                                path => $path, %opt);
}


sub get { my $self = shift; return $self->request('GET', @_) }


# post($path, $body, %opt)

sub post {
    my ($self, $path, $body, %opt) = @_;

    return $self->request('POST', $path, body => $body, %opt);
}


# req($path, %opt): a request for $t->parallel()

sub req {
    my ($self, $path, %opt) = @_;

    return { port => $self->port, path => $path, %opt };
}


# parallel($n, $path, %opt): the same request $n times at once

sub parallel {
    my ($self, $n, $path, %opt) = @_;

    my $timeout = delete $opt{timeout};

    return Coord::HTTP::parallel([map { $self->req($path, %opt) } 1 .. $n],
                                 timeout => $timeout);
}


# all_workers($path, sub {..}, $seconds): true when requests for $path, each with
# a number of its own behind it, are answered by all workers, whose pids stand
# in X-Pid, as the function wants it of a response

sub all_workers {
    my ($self, $path, $wanted, $seconds) = @_;

    my @pids = $self->workers;
    my $n = 0;

    return wait_for(sub {
        my @got = Coord::HTTP::parallel([map { $self->req($path . $n++) }
                                         1 .. 10 * @pids]);
        my %seen = map { $_->header('X-Pid') => 1 } grep { $wanted->($_) } @got;

        return keys %seen == @pids;
    }, $seconds || 30);
}


sub connect {
    my ($self, %opt) = @_;

    return Coord::HTTP::Conn->new(port => $self->port, %opt);
}


# begin(%request): a connection on which that has been sent, as
# Coord::HTTP::format() takes it

sub begin {
    my ($self, %request) = @_;

    my $c = $self->connect;
    $c->send(Coord::HTTP::format(%request));

    return $c;
}


# h2($path, @curl_arguments): HTTP/2 over cleartext; the server block needs
# "listen .. http2"

sub h2 {
    my ($self, $path, @args) = @_;

    open(my $fh, '-|', 'curl', '-s', '-i', '--max-time', '20',
         '--http2-prior-knowledge', @args,
         $path =~ /^http:/ ? $path : $self->url($path))
        or die "curl: $!";
    local $/;
    my $text = <$fh>;
    close $fh;

    my $res = Coord::HTTP::Response->new;

    if (defined $text && $text =~ s{\AHTTP/2 (\d+)}{HTTP/1.1 $1}) {
        my ($head, $body) = split /\r\n\r\n/, $text, 2;

        $res->feed("$head\r\n\r\n");
        $res->{body} = $body;
        $res->{complete} = 1;
    }

    return $res;
}


1;
