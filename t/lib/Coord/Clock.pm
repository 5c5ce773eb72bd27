package Coord::Clock;

# Copyright (C) ngx_coord_module contributors

# A clock that stands still while the machine does.  A process sleeps for a
# hundredth of a second at a time, as those who are tested do, and the clock
# counts how often it came to that: where nobody got on, neither did the clock.
# It is never ahead of that of the machine.
#
#   ran()      seconds; only differences tell something
#
# What has an upper bound ("at once", "within 2 s") is measured by it, and so
# is how long a test waits; what takes a while at least is measured by time().

use strict;
use warnings;

use Exporter qw(import);
use POSIX ();
use Time::HiRes qw(sleep time);

our @EXPORT_OK = qw(ran);

my ($clock, $pid, $owner);


# start($file): from now on; the file grows by a byte with each beat

sub start {
    my ($file) = @_;

    $owner = $$;

    open(my $fh, '>:raw', $file) or die "cannot write $file: $!";
    open($clock, '<:raw', $file) or die "cannot read $file: $!";

    $pid = fork();
    die "fork: $!" if !defined $pid;

    if ($pid == 0) {
        $SIG{$_} = 'DEFAULT' for qw(TERM INT HUP ALRM);
        $0 = 'clock of a test';

        # who reads what the test says waits for its end
        open(STDIN, '<', '/dev/null');
        open(STDOUT, '>', '/dev/null');
        open(STDERR, '>', '/dev/null');

        while (getppid() == $owner) {
            sleep 0.01;
            syswrite($fh, '.');
        }

        POSIX::_exit(0);
    }
}


sub stop {
    return if !$pid || $$ != $owner;

    kill 'KILL', $pid;
    waitpid($pid, 0);
    ($clock, $pid) = ();
}


sub ran { return $clock ? (-s $clock || 0) / 100 : time }


1;
