// The first thread ends, another one does the work: of the process /proc/PID shows a zombie.
//
// --requests N, --gate.
#include <pthread.h>

#include "../shared/gate.h"
#include "model.hpp"

static int count;
static char** values;

static void* work(void*) {
    const long requests = option_number(count, values, "--requests", 20);
    Model model;
    long sum = 0;
    while (gate_next(count, values)) {
        for (long request = 0; request < requests; request++) sum = (sum * 3 + model.predict(request)) % 1000003;
        printf("sum %ld\n", sum);
        fflush(stdout);
    }
    return nullptr;
}

int main(int argc, char** argv) {
    count = argc;
    values = argv;
    pthread_t worker;
    if (pthread_create(&worker, nullptr, work, nullptr) != 0) return 2;
    pthread_exit(nullptr);
}
