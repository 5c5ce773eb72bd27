#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# The reference is complete and true: directives, their contexts, parameters and
# defaults, the lines of coord_store, variables, status words and metrics are the
# same in docs/ and in the module.  nginx itself is asked where it can tell.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Util qw(slurp);

my $root = "$FindBin::Bin/..";
my $t = Coord->new;
my $n = $t->node(name => 'docs', conf => 'http {}');

$n->allow(qr/\[emerg\]/);

my %source = map { m{([^/]+)$}; $1 => slurp($_) }
                 glob "$root/ngx_coord_module/*/*.[ch]";
my $code = join "\n", map { $source{$_} } sort keys %source;
my %page = map { m{([^/]+)$}; $1 => slurp($_) } glob "$root/docs/*.md";

# adjacent literals are one

$code =~ s/"\s*\n\s*"//g;


# what nginx says of one line in a place

my %place = (
    main => '%s http { }',
    http => "http {\n%s\n}",
    server => "http {\nserver {\n%s\n}\n}",
    location => "http {\nserver {\nlocation / {\n%s\n}\n}\n}",
    'if in server' => "http {\nserver {\nif (\$args) {\n%s\n}\n}\n}",
    'if in location' => "http {\nserver {\nlocation / {\nif (\$args) {\n%s\n"
                        . "}\n}\n}\n}",
    limit_except => "http {\nserver {\nlocation / {\nlimit_except GET {\n%s\n"
                    . "}\n}\n}\n}",
    upstream => "http {\nupstream u {\n%s\nserver 127.0.0.1;\n}\n}",
);

sub says {
    my ($where, $line) = @_;

    $n->conf(conf => sprintf $place{$where}, $line);

    my ($good, $out) = $n->check;

    return $out;
}


# directives of the tables: name => offset in a configuration and its type

my %directive;

for my $name (sort keys %source) {
    my $text = $source{$name};

    # variables have NULL behind their name

    while ($text =~ /^\s*\{ ngx_string\("(coord_\w+)"\),\n(.*?) \},\n/msg) {
        my ($directive, $rest) = ($1, $2);

        next if $rest !~ /NGX_CONF_/;

        my ($field) = $rest =~ /offsetof\(\w+, (\w+)\)/;
        my ($enum) = $rest =~ /&(\w+)\s*$/;

        $directive{$directive} = { file => $name, field => $field,
                                   enum => $enum };
    }

    while ($text =~ /^\s*ngx_http_coord_limiter_(\w+)\("(coord_\w+)"\)/mg) {
        $directive{"$2$_"} = {}
            for qw(_log_level _dry_run), $1 eq 'commands' ? '_status' : ();
    }
}

cmp_ok(scalar keys %directive, '>=', 50, 'directives of the module');


# directives of the pages

my %doc;

for my $name (sort keys %page) {
    while ($page{$name} =~ /^### (coord_\w+)\n(.*?)(?=^#|\z)/msg) {
        my ($directive, $text) = ($1, $2);

        ok(!$doc{$directive}, "$directive: on one page");

        $text =~ /\A\n\*\*Syntax:\*\*\ \*\*`(\w+)`\*\*\ ?(.*)\\\n
                  \*\*Default:\*\*\ (.*)\\\n
                  \*\*Context:\*\*\ (.*)\n\n/x;

        is($1, $directive, "$directive: syntax, default, context");
        $doc{$directive} = { syntax => $2 || '', default => $3 || '',
                             context => $4 || '', text => $text };
    }
}

is(join(' ', sort keys %doc), join(' ', sort keys %directive),
   'each directive has its place in docs/');


# contexts, as nginx knows them

for my $name (sort keys %doc) {
    my $line = $name eq 'coord_store' ? 'coord_store x { }' : "$name x;";
    my @where = grep { says($_, $line) !~ /"$name" directive is not allowed/ }
                sort keys %place;
    my @said = split /, /, $doc{$name}{context};

    is("@where", join(' ', sort @said), "$name: context");
}


# parameters, as the error for another one lists them

my %needs = (
    coord_cache_zone => '', coord_cache => 'key zone=z',
    coord_limit_conn => 'z 1',
    coord_limit_conn_zone => 'key', coord_limit_req => '',
    coord_limit_req_hold => '', coord_limit_req_zone => 'key rate=1r/s',
    coord_lock => 'zone=z', coord_lock_zone => 'key', coord_lookup => '$v key',
    coord_publish => 'channel message', coord_session => '',
    coord_session_zone => 'key', coord_session_cookie => 'name',
    coord_idempotency => 'on', coord_api => '',
);

for my $name (sort keys %needs) {
    my $where = $doc{$name}{context} =~ /http/ ? 'http' : 'location';
    my $zone = $needs{$name} =~ /zone=z/ ? zone($name) : '';
    my $out = says($where, "$zone$name $needs{$name} no_such=1;");

    my ($allowed) = $out =~ /invalid parameter "no_such=1", allowed are (.*) in /;

    my %want = map { $_ => 1 } ($allowed || '') =~ /"(\w+=?)[\w|]*"/g;
    my %have = map { $_ => 1 } $doc{$name}{syntax} =~ /`(\w+=)/g;

    # words: in brackets, or one of several in brackets

    for my $part ($doc{$name}{syntax} =~ /\[([^][]*)\]/g) {
        $have{$_} = 1 for $part =~ /(?:^| )`(\w+)`(?= |$)/g;
    }

    is(join(' ', sort keys %have), join(' ', sort keys %want),
       "$name: parameters");
}

# where "zone=z" is needed

sub zone {
    my ($name) = @_;

    return "coord_lock_zone k zone=z;\n" if $name eq 'coord_lock';
    return "coord_cache_zone zone=z;\n" if $name eq 'coord_cache';
    return '';
}


# words that are given to choose from, all that are named and no other

for my $name (sort keys %doc) {
    for my $choice ($doc{$name}{syntax} =~ /`(\w+=\w+`(?:\|`\w+`)+)/g) {
        my ($key, @words) = $choice =~ /(\w+)[`=|]/g;
        my %need = (align => 'algorithm=fixed_window',
                    over => 'max_per_user=1', samesite => 'secure');

        for my $word (@words, 'no_such') {
            my $line = "$name $needs{$name} " . ($need{$key} || '')
                       . " $key=$word";
            my $out = says('http', zone($name) . "$line;");
            my $bad = $out =~ /invalid|must be|allowed are/;

            is($bad ? 1 : 0, $word eq 'no_such' ? 1 : 0,
               "$name: $key=$word") or diag($out);
        }
    }
}


# defaults, where the code merges a constant

for my $name (sort keys %directive) {
    my ($file, $field) = @{$directive{$name}}{qw(file field)};

    next if !$field;
    next if $source{$file} !~ /ngx_conf_merge_(\w+)_value\(
                               conf->$field,\s+prev->$field,\s+(.*?)\);/x;

    my ($type, $value) = ($1, $2);
    my ($said) = $doc{$name}{default} =~ /^`$name (.*);`$/;

    if ($type eq 'msec' || $type eq 'size') {
        $value = eval $value;
        is(number($said, $type), $value, "$name: default");

    } elsif ($directive{$name}{enum}) {
        my ($enum) = $code =~ /$directive{$name}{enum}\[\] = \{(.*?)^\};/ms;
        my %word = reverse $enum =~ /ngx_string\("(\w+)"\), (\w+)/g;

        is($said, $word{$value}, "$name: default");
    }
}

for my $feature (qw(limit_req limit_conn lock session idempotency)) {
    is($doc{"coord_${feature}_log_level"}{default},
       "`coord_${feature}_log_level error;`", "$feature: log level");
    is($doc{"coord_${feature}_dry_run"}{default},
       "`coord_${feature}_dry_run off;`", "$feature: dry run");
}

sub number {
    my ($text, $type) = @_;

    my %of = $type eq 'msec' ? (ms => 1, '' => 1000, s => 1000, m => 60_000,
                                h => 3_600_000, d => 86_400_000)
                             : ('' => 1, k => 1024, m => 1024 * 1024);

    return ($text || '') =~ /^(\d+)(\w*)$/ ? $1 * $of{$2} : $text;
}


# lines of coord_store

{
    my ($table) = $source{'ngx_http_coord_store_conf.c'}
                  =~ /coord_store_commands\[\] = \{(.*?)^\};/ms;
    my %want = map { $_ => 1 } $table =~ /ngx_string\("(\w+)"\)/g;
    my %have;

    for my $row ($doc{coord_store}{text} =~ /^\| (`.*?) \| /mg) {
        $have{$_} = 1 for $row =~ /(?:^|, )`(\w+)`/g;
    }

    is(join(' ', sort keys %have), join(' ', sort keys %want),
       'lines of coord_store');

    my %default = $doc{coord_store}{text}
                  =~ /^\| `(\w+)` [^|]*\| `?([\w:]+)`?,?.*? \| /mg;
    my $c = $source{'ngx_http_coord_store_conf.c'};

    for my $time (qw(timeout connect_timeout)) {
        my ($ms) = $c =~ /sc->$time = (\d+);/;
        is(number($default{$time}, 'msec'), $ms, "$time: default");
    }

    is($default{max_pending}, ($c =~ /sc->max_pending = (\d+);/)[0],
       'max_pending: default');
    is($default{breaker}, ($c =~ /sc->breaker_failures = (\d+);/)[0],
       'breaker: default');
    is($default{key_prefix}, ($c =~ /key_prefix, "(.*?)"/)[0],
       'key_prefix: default');
}


# variables, and the words of statuses

{
    my %want = map { $_ => 1 }
        $code =~ /\{ ngx_string\("(coord_\w+)"\), NULL,\s/g;
    $want{coord_client_net} = 1;
    my %have = $page{'variables.md'} =~ /^\| `\$(\w+)` \| (.*) \|$/mg;

    is(join(' ', sort keys %have), join(' ', sort keys %want),
       'docs/variables.md has all of them');

    my ($log) = slurp("$root/examples/coord_json.conf");
    my %logged = map { $_ => 1 } $log =~ /\$(coord_\w+)/g;

    is(join(' ', sort keys %logged),
       join(' ', grep { $have{$_} !~ /not logged/ } sort keys %have),
       'examples/coord_json.conf has those that are logged');

    my %word = map { $_ => 1 } $source{'ngx_coord_outcome.c'}
                               =~ /\{ ngx_string\("(\w+)"\)/g;

    for my $name (grep { /_status$/ } sort keys %have) {
        my @words = $have{$name} =~ /`([A-Z_]+)`/g;

        cmp_ok(scalar @words, '>=', 6, "$name: its words");
        is(join(' ', grep { !$word{$_} } @words), '', "$name: no other word");
    }

    for my $name (sort keys %page) {
        my %seen = map { $_ => 1 } $page{$name} =~ /\$(coord_\w+[a-z])\b/g;
        is(join(' ', grep { !$want{$_} } sort keys %seen), '',
           "$name: no other variable");
    }
}


# links within the repository lead somewhere

{
    my (@lost, $links);

    for my $file ("$root/README.md", glob "$root/docs/*.md $root/*/README.md") {
        my ($dir) = $file =~ m{(.*)/};

        my $text = slurp($file);

        while ($text =~ /\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)/g) {
            my ($to, $anchor) = ($1 eq '' ? $file : "$dir/$1", $2);

            $links++;

            if (!-e $to) {
                push @lost, "$file: $to";

            } elsif (defined $anchor) {
                push @lost, "$file: $to#$anchor"
                    if !grep { $_ eq $anchor } anchors(slurp($to));
            }
        }
    }

    cmp_ok($links, '>=', 100, 'links');
    is(join("\n", @lost), '', 'each leads somewhere');
}

# as the pages of a repository name their headings

sub anchors {
    my ($text) = @_;

    $text =~ s/^```.*?^```//msg;

    return map { lc =~ s/[^\w\s-]//gr =~ s/\s/-/gr } $text =~ /^#+ (.*?) *$/mg;
}

done_testing();
