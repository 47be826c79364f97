// Calls each kernel with each kind, in threads that end in different ways.
//
// --rounds N, --gate.
#include <pthread.h>

#include <stdexcept>

#include "../shared/gate.h"
#include "dispatch.hpp"

namespace {

struct Work {
    int leave;
    double sum;
    int thrown;
    int jumped;
};

void* work(void* argument) {
    auto* work = static_cast<Work*>(argument);
    const ml::Model model{};
    for (volatile int kind = 0; kind < 9; kind = kind + 1) {
        // Leaving the thread comes last: it takes the rest with it.
        const int leave = work->leave == 1 || kind == 5 ? work->leave : 0;
        if (setjmp(way_out) != 0) {
            work->jumped++;
            continue;
        }
        try {
            work->sum += model.predict(kind + 0.5, kind, leave);
        } catch (const std::logic_error&) {
            work->thrown++;
        }
    }
    return nullptr;
}

} // namespace

int main(int argc, char** argv) {
    const long rounds = option_number(argc, argv, "--rounds", 5);
    while (gate_next(argc, argv)) {
        for (long round = 0; round < rounds; round++) {
            for (int leave = 0; leave < 4; leave++) {
                Work one{leave, 0, 0, 0};
                pthread_t thread;
                if (pthread_create(&thread, nullptr, work, &one) != 0) return 1;
                pthread_join(thread, nullptr);
                printf("leave %d: sum %g, thrown %d, jumped %d\n", leave, one.sum, one.thrown, one.jumped);
            }
        }
    }
    return 9;
}
