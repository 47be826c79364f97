// Calls the model under many untraced frames, on a thread whose stack they nearly fill.
//
// --levels N (default 5000, of about 600 bytes), --requests N, --gate.
#include <pthread.h>

#include "../shared/gate.h"
#include "model.hpp"

namespace {

struct Task {
    long levels;
    long requests;
    long sum;
};

void* run(void* argument) {
    auto* task = static_cast<Task*>(argument);
    ml::Model model;
    for (long request = 0; request < task->requests; request++) task->sum += below(model, task->levels, request);
    return nullptr;
}

} // namespace

int main(int argc, char** argv) {
    Task task{option_number(argc, argv, "--levels", 5000), option_number(argc, argv, "--requests", 20), 0};
    while (gate_next(argc, argv)) {
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, (size_t)(task.levels * 640 + 65536));
        pthread_t thread;
        if (pthread_create(&thread, &attributes, run, &task) != 0) return 1;
        pthread_join(thread, nullptr);
        printf("sum %ld\n", task.sum);
    }
    return 0;
}
