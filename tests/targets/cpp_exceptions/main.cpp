// Every second call leaves its frames without returning.
//
// --mode throw | middle | rethrow | guarded | jump | exit-thread | cancel | terminate, --requests N, --gate.
// Exit code 7, or death by SIGABRT for `terminate`.
#include <pthread.h>
#include <semaphore.h>

#include <stdexcept>

#include "../shared/gate.h"
#include "frames.hpp"

namespace {

struct ThreadTask {
    ml::Outer* outer;
    int value;
    Leave leave;
    int result;
};

void* run_task(void* argument) {
    auto* task = static_cast<ThreadTask*>(argument);
    task->result = task->outer->predict(task->value, task->leave);
    return task;
}

int on_thread(ml::Outer& outer, int value, Leave leave) {
    ThreadTask task{&outer, value, leave, 0};
    pthread_t thread;
    if (pthread_create(&thread, nullptr, run_task, &task) != 0) return -1000;
    if (leave == Leave::BlockForCancel && value % 2 == 1) pthread_cancel(thread);
    void* returned = nullptr;
    pthread_join(thread, &returned);
    return returned == &task ? task.result : -2;
}

int guarded_jump(ml::Plain& plain, int value) {
    const int jumped = setjmp(landing);
    return jumped == 0 ? plain.predict(value, Leave::Jump) : -jumped;
}

} // namespace

int main(int argc, char** argv) {
    const std::string mode = option_text(argc, argv, "--mode", "throw");
    const long requests = option_number(argc, argv, "--requests", 20);
    ml::Outer outer;
    ml::Guarded guarded;
    ml::Plain plain;
    outer.middle.catches = mode == "middle";
    outer.middle.rethrows = mode == "rethrow";
    long sum = 0;
    while (gate_next(argc, argv)) {
        for (int value = 0; value < requests; value++) {
            int result = 0;
            try {
                if (mode == "guarded") {
                    result = guarded.predict(value, Leave::Throw);
                } else if (mode == "terminate") {
                    result = guarded.predict_proba(value, value + 1 == requests ? Leave::Throw : Leave::Return);
                } else if (mode == "jump") {
                    result = guarded_jump(plain, value);
                } else if (mode == "exit-thread") {
                    result = on_thread(outer, value, Leave::ExitThread);
                } else if (mode == "cancel") {
                    result = on_thread(outer, value, Leave::BlockForCancel);
                } else {
                    result = outer.predict(value, Leave::Throw);
                }
            } catch (const std::exception& error) {
                printf("caught: %s\n", error.what());
                result = -3;
            }
            sum += result;
            printf("request %d: %d, %d cleanups\n", value, result, Cleanup::count);
            fflush(stdout);
        }
    }
    printf("sum %ld\n", sum);
    return 7;
}
