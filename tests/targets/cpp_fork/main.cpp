// Fork in the middle of a traced call; exec in the child; exec of the process itself.
//
// --mode fork | fork-exec | exec | exec-thread, --requests N, --gate. Exit code 3; after `exec` the same program ends with code 4.
// With `exec-thread` another thread than the first does all of it.
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "../shared/gate.h"
#include "model.hpp"

namespace {
const char* self = nullptr;
}

int take_step(int value, Step step) {
    if (step == Step::Exec) {
        fflush(stdout);
        execl(self, self, "--after-exec", "yes", nullptr);
        return -100;
    }
    if (step == Step::None) return value;
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        if (step == Step::ForkAndExec) {
            execl(self, self, "--after-exec", "yes", nullptr);
            _exit(99);
        }
        // The child goes on inside the call that its parent opened, and returns from it.
        return value + 1000;
    }
    int status = 0;
    waitpid(child, &status, 0);
    return value + WEXITSTATUS(status);
}

int main(int argc, char** argv) {
    self = "/proc/self/exe";
    ml::Plain plain;
    if (option_present(argc, argv, "--after-exec")) {
        printf("after exec: %d\n", plain.predict(21));
        return 4;
    }
    const std::string mode = option_text(argc, argv, "--mode", "fork");
    const long requests = option_number(argc, argv, "--requests", 10);
    const Step step = mode == "exec" || mode == "exec-thread" ? Step::Exec : mode == "fork-exec" ? Step::ForkAndExec : Step::Fork;
    ml::Forking forking;
    const auto serve = [&] {
        for (int request = 0; request < requests; request++) {
            const bool last = request + 1 == requests;
            const int result = forking.predict(request, step == Step::Exec && !last ? Step::None : step);
            if (result > 1000) {
                printf("child of request %d: %d\n", request, plain.predict(result));
                fflush(stdout);
                _exit(request);
            }
            printf("request %d: %d, %d\n", request, result, plain.predict(result));
        }
    };
    while (gate_next(argc, argv)) {
        if (mode == "exec-thread") {
            std::thread(serve).join();
        } else {
            serve();
        }
    }
    return 3;
}
