package Coord::Browser;

# Copyright (C) ngx_coord_module contributors

# A page in headless Chromium (Debian package chromium), driven over a pipe by
# the DevTools protocol: real clicks, sizes, colour schemes.
#
#   my $b = Coord::Browser->new($t) or ..      # undef: there is no Chromium
#   $b->open($url)              1 when the page is loaded
#   $b->eval('1 + 1')           the value of an expression, as JSON has it
#   $b->until('..', $seconds)   its first true value; undef when time is over
#   $b->size(360, 740)          of the window, in CSS pixels
#   $b->scheme('dark')          what prefers-color-scheme says
#   $b->script(0)               pages run no script from now on
#   $b->shot($file)             a picture of the whole page, PNG
#   $b->console                 what was complained of since the last call
#   $b->close

use strict;
use warnings;

use Coord::Util qw(kill_and_wait spew);
use IO::Select;
use JSON::PP;
use MIME::Base64 qw(decode_base64);
use POSIX ();
use Time::HiRes qw(sleep time);


sub new {
    my ($class, $t) = @_;

    my ($binary) = grep { -x } map { ("$_/chromium", "$_/chromium-browser") }
                   split /:/, $ENV{PATH};

    return if !$binary;

    my $dir = $t->dir . '/chromium';

    pipe(my $in, my $write) or die "pipe: $!";
    pipe(my $read, my $out) or die "pipe: $!";

    my $pid = fork();
    die "fork: $!" if !defined $pid;

    if (!$pid) {
        # the browser reads file descriptor 3 and writes 4
        POSIX::dup2(fileno($in), 100);
        POSIX::dup2(fileno($out), 101);
        POSIX::dup2($_, $_ - 97) for 100, 101;
        POSIX::close($_) for 100, 101;

        open STDIN, '<', '/dev/null';
        open STDOUT, '>', "$dir.log";
        open STDERR, '>&', \*STDOUT;

        exec $binary, qw(--headless --no-sandbox --disable-gpu --disable-quic
            --no-first-run --disable-background-networking
            --disable-component-update --disable-sync --disable-dev-shm-usage
            --disable-extensions --hide-scrollbars --remote-debugging-pipe),
            "--user-data-dir=$dir", 'about:blank'
            or POSIX::_exit(127);
    }

    CORE::close($_) for $in, $out;
    $t->track($pid);

    my $self = bless {
        pid => $pid, owner => $$, write => $write, read => $read, buffer => '', id => 0,
        console => [], loaded => 0,
    }, $class;

    my ($target) = grep { $_->{type} eq 'page' }
        @{ $self->call('Target.getTargets')->{targetInfos} };

    $self->{session} = $self->call('Target.attachToTarget',
        targetId => $target->{targetId}, flatten => JSON::PP::true)
        ->{sessionId};

    $self->call("$_.enable") for qw(Page Runtime Log);

    return $self;
}


# call(method, parameters): the result of a command

sub call {
    my ($self, $method, %params) = @_;

    my $id = ++$self->{id};
    my %message = (id => $id, method => $method, params => \%params);

    $message{sessionId} = $self->{session} if $self->{session};

    local $SIG{PIPE} = 'IGNORE';
    syswrite $self->{write}, encode_json(\%message) . "\0"
        or die "Chromium: $!";

    my $reply = $self->read($id, 60) or die "Chromium: no answer to $method";

    die "Chromium: $method: $reply->{error}{message}" if $reply->{error};

    return $reply->{result};
}


# read(id, seconds): takes messages until the answer to id; what comes in
# between is noted

sub read {
    my ($self, $id, $seconds) = @_;

    my $end = time() + $seconds;

    for ( ;; ) {
        while ($self->{buffer} =~ s/^([^\0]*)\0//) {
            my $message = decode_json($1);

            return $message if $id && ($message->{id} || 0) == $id;

            $self->note($message);
        }

        my $left = $end - time();
        return if $left <= 0;
        next if !IO::Select->new($self->{read})->can_read($left);

        sysread $self->{read}, $self->{buffer}, 1_000_000,
                length $self->{buffer}
            or die "Chromium has ended";
    }
}


sub note {
    my ($self, $message) = @_;

    my $method = $message->{method} || '';
    my $params = $message->{params};

    $self->{loaded} = 1 if $method eq 'Page.loadEventFired';

    push @{$self->{console}}, $params->{entry}{text}
        if $method eq 'Log.entryAdded';

    push @{$self->{console}}, map { $_->{value} // $_->{description} // '' }
                              @{ $params->{args} }
        if $method eq 'Runtime.consoleAPICalled';

    push @{$self->{console}}, $params->{exceptionDetails}{text} . ' '
         . ($params->{exceptionDetails}{exception}{description} // '')
        if $method eq 'Runtime.exceptionThrown';
}


sub open {
    my ($self, $url) = @_;

    $self->{loaded} = 0;
    $self->call('Page.navigate', url => $url);

    my $end = time() + 60;
    $self->read(0, 0.05) while !$self->{loaded} && time() < $end;

    return $self->{loaded};
}


sub eval {
    my ($self, $text) = @_;

    my $result = $self->call('Runtime.evaluate', expression => $text,
                             returnByValue => JSON::PP::true,
                             awaitPromise => JSON::PP::true);

    die "Chromium: $text: $result->{exceptionDetails}{text}"
        . ($result->{exceptionDetails}{exception}{description} // '')
        if $result->{exceptionDetails};

    return $result->{result}{value};
}


sub until {
    my ($self, $text, $seconds) = @_;

    my $end = time() + $seconds;

    for ( ;; ) {
        my $value = CORE::eval { $self->eval($text) };

        return $value if $value;
        return if time() > $end;
        sleep 0.1;
    }
}


sub size {
    my ($self, $width, $height) = @_;

    $self->call('Emulation.setDeviceMetricsOverride', width => $width,
                height => $height, deviceScaleFactor => 1,
                mobile => $width < 600 ? JSON::PP::true : JSON::PP::false);

    return $self;
}


sub scheme {
    my ($self, $scheme) = @_;

    $self->call('Emulation.setEmulatedMedia', features => [
        { name => 'prefers-color-scheme', value => $scheme } ]);

    return $self;
}


sub script {
    my ($self, $on) = @_;

    $self->call('Emulation.setScriptExecutionDisabled',
                value => $on ? JSON::PP::false : JSON::PP::true);

    return $self;
}


sub shot {
    my ($self, $file) = @_;

    my $result = $self->call('Page.captureScreenshot',
                             captureBeyondViewport => JSON::PP::true);

    spew($file, decode_base64($result->{data}));

    return $file;
}


sub console {
    my ($self) = @_;

    my @all = @{$self->{console}};
    $self->{console} = [];

    return @all;
}


# close(): ends the browser, and waits for it

sub close {
    my ($self) = @_;

    return if $self->{owner} != $$ || !$self->{pid};

    CORE::eval { $self->call('Browser.close') };
    kill_and_wait('TERM', 10, delete $self->{pid});
}


sub DESTROY { $_[0]->close }


1;
