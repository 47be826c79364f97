// Options and pacing that all targets share.
//
// A target works in batches. With `--gate` it prints `ready` and waits for a line on its standard input before each
// batch, and ends at the end of input; without, it does one batch and ends. So a test can attach first, and knows when
// a batch is over, without sleeping.
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline const char *option_text(int count, char **values, const char *name, const char *fallback) {
    for (int index = 1; index + 1 < count; index++) {
        if (strcmp(values[index], name) == 0) return values[index + 1];
    }
    return fallback;
}

static inline long option_number(int count, char **values, const char *name, long fallback) {
    const char *text = option_text(count, values, name, NULL);
    return text ? strtol(text, NULL, 10) : fallback;
}

static inline int option_present(int count, char **values, const char *name) {
    for (int index = 1; index < count; index++) {
        if (strcmp(values[index], name) == 0) return 1;
    }
    return 0;
}

// Waits for a line on standard input; 0 at its end.
static inline int gate_line(void) {
    for (;;) {
        int character = getchar();
        if (character == '\n') return 1;
        if (character == EOF) return 0;
    }
}

// Whether there is a further batch to do.
static inline int gate_next(int count, char **values) {
    static int batches = 0;
    if (!option_present(count, values, "--gate")) return batches++ == 0;
    puts("ready");
    fflush(stdout);
    return gate_line();
}
