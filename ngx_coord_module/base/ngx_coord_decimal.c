
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_decimal.h"


const u_char  ngx_coord_pairs[] =
    "00010203040506070809" "10111213141516171819" "20212223242526272829"
    "30313233343536373839" "40414243444546474849" "50515253545556575859"
    "60616263646566676869" "70717273747576777879" "80818283848586878889"
    "90919293949596979899";


u_char *
ngx_coord_decimal(u_char *p, uint64_t n)
{
    u_char    *end;
    uint64_t   rest;

    end = p + 1;

    for (rest = n; rest >= 100; rest /= 100) {
        end += 2;
    }

    if (rest >= 10) {
        end++;
    }

    (void) ngx_coord_digits(end, n);

    return end;
}
