// Measures itself: for each line `NAME CALLS` on its standard input it makes the calls and prints how many nanoseconds
// one of them took; for `pace RATE SECONDS` it makes calls at a steady rate and prints how many a second it made.
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "functions.h"
#include "model.hpp"

namespace {

// Calls of the leaf in one call of the container.
constexpr long LEAVES = 1000;

long step(long value) { return value + 1; }

double seconds() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return double(now.tv_sec) + double(now.tv_nsec) * 1e-9;
}

void call_push(long calls) {
    while (calls-- > 0) bench_push();
}

void call_marked(long calls) {
    while (calls-- > 0) bench_marked();
}

void call_pipeline(long calls) {
    while (calls-- > 0) bench_pipeline();
}

void call_model(long calls) {
    const bench::Model model(step, 7);
    long value = 0;
    while (calls-- > 0) value = model.predict(value);
    if (value == 1) puts("");
}

// Counts the calls of the leaf.
void call_folded(long calls) {
    for (; calls > 0; calls -= LEAVES) bench_container(LEAVES);
}

const struct {
    const char *name;
    void (*run)(long calls);
} KINDS[] = {
    {"push", call_push},         {"marked", call_marked}, {"pipeline", call_pipeline},
    {"model", call_model}, {"folded", call_folded},
};

// A share of the calls each millisecond.
double pace(long rate, double duration) {
    const double begin = seconds();
    double now = begin;
    long made = 0;
    while (now - begin < duration) {
        const long due = long(double(rate) * (now - begin));
        call_push(due - made);
        made = due > made ? due : made;
        const timespec pause = {0, 1000000};
        nanosleep(&pause, nullptr);
        now = seconds();
    }
    return double(made) / (now - begin);
}

}  // namespace

int main() {
    char line[64];
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        char name[17];
        long calls = 0;
        double duration = 0;
        const int fields = sscanf(line, "%16s %ld %lf", name, &calls, &duration);
        double figure = -1;
        if (fields == 3 && strcmp(name, "pace") == 0) figure = pace(calls, duration);
        for (const auto &kind : KINDS) {
            if (fields != 2 || strcmp(name, kind.name) != 0) continue;
            const double begin = seconds();
            kind.run(calls);
            figure = (seconds() - begin) * 1e9 / double(calls);
        }
        printf("%.3f\n", figure);
        fflush(stdout);
    }
    return 0;
}
