#!/bin/sh
#
# Copyright (C) ngx_coord_module contributors
#
# Writes ngx_coord_script_table.h, the C table of the operations in this
# directory, to stdout:
#
#     lua-free-scripts/generate.sh > ngx_coord_module/base/ngx_coord_script_table.h
#
# generate.sh [directory]: where the *.redis files are, by default here.
# Ends with file:line and a reason on stderr, and status 1, if one is wrong.

set -e

LC_ALL=C
export LC_ALL

cd "${1:-$(dirname "$0")}"

set -- *.redis

if [ ! -f "$1" ]; then
    echo "generate.sh: no *.redis files in $(pwd)" >&2
    exit 1
fi

table=$(awk '
function fail(line, why)
{
    printf "%s:%d: %s\n", file, line, why | "cat 1>&2"
    close("cat 1>&2")
    failed = 1
    exit 1
}

# the file is complete: check it and keep its C text
function finish(    i, n, text)
{
    if (file == "") {
        return
    }

    n = split("name keys args reply atomic concurrent", fields, " ")

    for (i = 1; i <= n; i++) {
        # a script may do without arguments, but has to say so
        if (!(fields[i] in seen)) {
            fail(last, "no \"# " fields[i] ":\" in the header")
        }
    }

    if (state == "commands") {
        fail(last, "no EXEC")
    }

    if (ncommands == 0) {
        fail(last, "no commands")
    }

    if (replies != ncommands) {
        fail(last, ncommands " commands, but " replies " \"# reply:\" lines")
    }

    for (i in declared) {
        if (!(i in arg)) {
            fail(declared[i], "{" i "} is declared but not used")
        }
    }

    if (literal != "") {
        part("-1")
    }

    scripts++
    name[scripts] = script
    upper[scripts] = toupper(script)

    text = "enum {\n"
    for (i = 0; i < nargs; i++) {
        text = text "    NGX_COORD_" upper[scripts] "_" toupper(order[i])
        text = text (i == 0 ? " = 0" : "") (i + 1 < nargs ? "," : "") "\n"
    }
    text = text "};\n\n"
    text = text "#define NGX_COORD_" upper[scripts] "_NARGS  " nargs

    names = ""
    for (i = 0; i < replies; i++) {
        if (reply_name[i] != "") {
            names = names (names == "" ? "" : ",\n") "    NGX_COORD_" \
                    upper[scripts] "_" toupper(reply_name[i]) "_REPLY = " i
        }
    }
    if (names != "") {
        text = text "\n\n/* its replies */\n\nenum {\n" names "\n};"
    }

    indices[scripts] = text

    text = ""
    for (i = 0; i < replies; i++) {
        text = text "    " reply_shape[i] (i + 1 < replies ? "," : "") "\n"
    }
    shapes[scripts] = text

    keys_of[scripts] = nkeys
    key_refs[scripts] = nrefs
    bound_of[scripts] = bound
    nkeys_max = nkeys > nkeys_max ? nkeys : nkeys_max

    parts[scripts] = body
    count[scripts] = nparts
    nargs_of[scripts] = nargs
    commands[scripts] = ncommands
    bare[scripts] = (state == "bare" ? 1 : 0)
    writes[scripts] = writing
}

# literal text, in C, one line per token; len counts its bytes on the wire
function add(token)
{
    literal = literal (literal == "" ? "" : "\n      ")
    literal = literal "\"" token "\\r\\n\""
    len += length(token) + 2
}

function bulk(token,    s)
{
    s = "$" length(token)
    literal = literal (literal == "" ? "" : "\n      ")
    literal = literal "\"" s "\\r\\n" token "\\r\\n\""
    len += length(s) + length(token) + 4
}

function part(index_)
{
    body = body "    { " (literal == "" ? "\"\"" : literal) ",\n"
    body = body "      " len ", " index_ " },\n"
    bound += len
    literal = ""
    len = 0
    nparts++
}

# what a reply may be, from "int|nil", "[int,int|nil]", "list", ...
function shape(what, line,    i, n, kinds, mask)
{
    if (what ~ /^\[/ || what == "list") {
        return "NGX_COORD_REPLY_ARRAY"
    }

    n = split(what, kinds, "|")
    mask = ""

    for (i = 1; i <= n; i++) {
        if (kinds[i] !~ /^(int|string|status|nil)$/) {
            fail(line, "\"" what "\" is no kind of reply")
        }

        mask = mask (i == 1 ? "" : "|") "NGX_COORD_REPLY_" \
               (kinds[i] == "int" ? "INTEGER" : toupper(kinds[i]))
    }

    return mask
}

function reads(command)
{
    return command ~ /^(GET|HGET|HMGET|PTTL)$/
}

# what who takes no writes answers all the same
function alters(command)
{
    return command !~ /^(GET|GETRANGE|HGET|HMGET|PTTL|TIME|ZCARD|ZCOUNT)$/ \
           && command !~ /^(ZRANGE|ZSCORE|XRANGE|XREVRANGE|PUBLISH)$/
}

function declare(what, line)
{
    if (what !~ /^[a-z][a-z0-9_]*$/) {
        fail(line, "\"" what "\" is no name of a placeholder")
    }

    if (what in declared) {
        fail(line, "{" what "} is declared twice")
    }

    declared[what] = line
}

function use(p, line)
{
    if (!(p in declared)) {
        fail(line, "unknown placeholder {" p "}")
    }

    if (!(p in arg)) {
        arg[p] = 1
        order[nargs++] = p
    }
}

FNR == 1 {
    finish()

    file = FILENAME
    script = file
    sub(/\.redis$/, "", script)
    state = "header"
    ncommands = nargs = nparts = replies = len = 0
    writing = 0
    nkeys = nrefs = bound = 0
    literal = body = ""
    split("", is_key)
    split("", reply_name)
    split("", reply_shape)
    split("", seen)
    split("", declared)
    split("", arg)
    split("", order)

    if (script !~ /^[a-z][a-z0-9_]*$/) {
        fail(1, "a file is called [a-z][a-z0-9_]*.redis")
    }

    if (index($0, "# " script ": ") != 1) {
        fail(1, "the first line is not \"# " script ": purpose\"")
    }

    seen["name"] = 1
    last = 1
    next
}

{
    last = FNR
}

/[^ -~]/ {
    fail(FNR, "a character that is not printable ASCII")
}

/^#/ {
    if (state != "header") {
        fail(FNR, "a comment below the header")
    }

    if ($0 ~ /^#    /) {
        next
    }

    if ($0 !~ /^# (keys|args|reply|atomic|concurrent): +[^ ]/) {
        fail(FNR, "an unknown line in the header")
    }

    field = $2
    sub(/:$/, "", field)
    seen[field] = 1

    if (field == "keys" && $0 != "# keys: none") {
        for (i = 3; i <= NF; i++) {
            declare($i, FNR)
            is_key[$i] = 1
            nkeys++
        }

    } else if (field == "args") {
        if ($0 != "# args: none") {
            declare($3, FNR)
        }

    } else if (field == "reply") {

        # "name=kind": the code calls it by its name

        reply_name[replies] = ""

        if ($3 ~ /^[a-z][a-z0-9_]*=/) {
            reply_name[replies] = $3
            sub(/=.*/, "", reply_name[replies])
            sub(/^[a-z0-9_]*=/, "", $3)
        }

        reply_shape[replies++] = shape($3, FNR)
    }

    next
}

NF == 0 {
    fail(FNR, "an empty line")
}

state == "end" {
    fail(FNR, "a command after EXEC")
}

# one command needs no transaction, nor who tells of it when it is done, and
# neither do some that only read

state == "bare" && !(reading && reads($1)) && $1 != "PUBLISH" {
    fail(FNR - 1, "MULTI is not the first of several commands")
}

state == "header" && $0 == "MULTI" {
    state = "commands"
    next
}

state == "header" {
    state = "bare"
    reading = reads($1)
}

state == "commands" && $0 == "EXEC" {
    state = "end"
    next
}

{
    if ($1 !~ /^[A-Z]+$/ || $1 ~ /^(MULTI|DISCARD|WATCH|UNWATCH|EXEC)$/) {
        fail(FNR, "\"" $1 "\" cannot stand here")
    }

    ncommands++
    writing = writing || alters($1)

    # a list stands for as many tokens as the caller has

    list = ""

    for (i = 2; i <= NF; i++) {
        if ($i ~ /^[{][a-z0-9_]+[.][.][}]$/) {

            if (list != "") {
                fail(FNR, "two lists in one command")
            }

            list = substr($i, 2, length($i) - 4)
        }
    }

    if (list == "") {
        add("*" NF)

    } else {
        if (NF > 32) {
            fail(FNR, "more than 31 tokens beside the list")
        }

        use(list, FNR)
        bound += 32
        part("NGX_COORD_SCRIPT_COUNT(" (NF - 1) ", NGX_COORD_" \
             toupper(script) "_" toupper(list) ")")
    }

    for (i = 1; i <= NF; i++) {

        if ($i !~ /[{}]/) {

            if ($i !~ /^[A-Za-z0-9+.*~-]+$/) {
                fail(FNR, "\"" $i "\" cannot be a literal")
            }

            bulk($i)
            continue
        }

        if (list != "" && $i == "{" list "..}") {
            part("NGX_COORD_SCRIPT_LIST(NGX_COORD_" toupper(script) "_" \
                 toupper(list) ")")
            continue
        }

        if ($i !~ /^[{][a-z0-9_]+[}]$/) {
            fail(FNR, "\"" $i "\": a placeholder is a whole token")
        }

        p = substr($i, 2, length($i) - 2)

        use(p, FNR)

        if (p in is_key) {
            nrefs++

        } else {
            bound += 128
        }

        part("NGX_COORD_" toupper(script) "_" toupper(p))
    }
}

END {
    if (failed) {
        exit 1
    }

    finish()

    print "/*"
    print " * Generated by lua-free-scripts/generate.sh from the files there:"
    print " * do not edit."
    print " */"
    print ""
    print ""
    print "#ifndef _NGX_COORD_SCRIPT_TABLE_H_INCLUDED_"
    print "#define _NGX_COORD_SCRIPT_TABLE_H_INCLUDED_"
    print ""
    print ""
    print "typedef enum {"
    for (i = 1; i <= scripts; i++) {
        print "    NGX_COORD_SCRIPT_" upper[i] (i == 1 ? " = 0," : ",")
    }
    print "    NGX_COORD_SCRIPT_MAX"
    print "} ngx_coord_script_e;"
    print ""
    print ""
    print "/* the keys of one script, at most */"
    print "#define NGX_COORD_SCRIPT_KEYS  " nkeys_max

    for (i = 1; i <= scripts; i++) {
        print ""
        print ""
        print "/* " name[i] ".redis */"
        print ""
        print indices[i]
    }

    print ""
    print ""
    print "extern const ngx_coord_script_t"
    print "    ngx_coord_scripts[NGX_COORD_SCRIPT_MAX];"
    print ""
    print ""
    print "#ifdef NGX_COORD_SCRIPT_TABLE"

    for (i = 1; i <= scripts; i++) {
        print ""
        print ""
        print "static const ngx_coord_script_part_t"
        print "    ngx_coord_" name[i] "_parts[] = {"
        print ""
        printf "%s", parts[i]
        print "};"
        print ""
        print ""
        print "static const u_char  ngx_coord_" name[i] "_replies[] = {"
        printf "%s", shapes[i]
        print "};"
    }

    print ""
    print ""
    print "const ngx_coord_script_t"
    print "    ngx_coord_scripts[NGX_COORD_SCRIPT_MAX] = {"
    for (i = 1; i <= scripts; i++) {
        print ""
        print "    { ngx_string(\"" name[i] "\"),"
        print "      NGX_COORD_" upper[i] "_NARGS, " commands[i] ", " \
              bare[i] ", " writes[i] ", " keys_of[i] ", " key_refs[i] ", " \
              bound_of[i] ","
        print "      ngx_coord_" name[i] "_replies,"
        print "      " count[i] ", ngx_coord_" name[i] "_parts },"
    }
    print "};"
    print ""
    print ""
    print "#endif /* NGX_COORD_SCRIPT_TABLE */"
    print ""
    print ""
    print "#endif /* _NGX_COORD_SCRIPT_TABLE_H_INCLUDED_ */"
}
' "$@")

printf "\n%s\n" "$table"
