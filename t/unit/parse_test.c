
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The names of variables in a text of nginx.conf.
 */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>

#include "ngx_coord_parse.h"


static void
variables(void **state)
{
    char        names[256];
    size_t      i;
    ngx_str_t   text, name;

    static const struct {
        const char  *text;
        const char  *names;
    } cases[] = {
        { "", "" },
        { "abc", "" },
        { "$a", "a," },
        { "x$arg_A-${b_1}c$d", "arg_A,b_1,d," },
        { "$a$b", "a,b," },
        { "$request_body.$1", "request_body,1," },
        { "${a", "a," },
        { "a$", "," },
        { "${", "," }
    };

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        text.data = (u_char *) cases[i].text;
        text.len = strlen(cases[i].text);
        names[0] = '\0';

        while (ngx_coord_parse_variable(&text, &name) == NGX_OK) {
            strncat(names, (char *) name.data, name.len);
            strcat(names, ",");
        }

        assert_string_equal(names, cases[i].names);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(variables)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
