package Coord::Clock;

# Copyright (C) ngx_coord_module contributors

# A clock that stands still while the machine does.  A process sleeps for a
# hundredth of a second at a time, as those who are tested do, and the clock
# counts how often it came to that: where nobody got on, neither did the clock.
# It is never ahead of that of the machine.
#
#   ran()      seconds; only differences tell something
#   pid()      of the process that counts
#   stood()    seconds of the longest time that the machine stood still
#
# What has an upper bound ("at once", "within 2 s") is measured by it, and so
# is how long a test waits; what takes a while at least is measured by time().

use strict;
use warnings;

use Exporter qw(import);
use POSIX ();
use Time::HiRes qw(sleep time);

our @EXPORT_OK = qw(ran stood);

my ($clock, $gap, $pid, $owner);


# start($file): from now on; the file grows by a byte with each beat

sub start {
    my ($file) = @_;

    $owner = $$;

    open(my $fh, '>:raw', $file) or die "cannot write $file: $!";
    open($clock, '<:raw', $file) or die "cannot read $file: $!";
    open(my $longest, '>:raw', "$file.stood") or die "cannot write $file: $!";
    open($gap, '<:raw', "$file.stood") or die "cannot read $file: $!";

    my ($last, $max) = (time, 0);

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

            my $now = time;

            if ($now - $last > $max) {
                $max = $now - $last;
                sysseek($longest, 0, 0);
                syswrite($longest, sprintf('%012.3f', $max));
            }

            $last = $now;
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


sub pid { return $pid }


sub stood {
    return 0 if !$gap;

    sysseek($gap, 0, 0);
    sysread($gap, my $text, 12);

    return ($text || 0) + 0;
}


sub ran { return $clock ? (-s $clock || 0) / 100 : time }


1;
