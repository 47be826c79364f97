// Has children that end after some calls, sooner than anybody can look at them: forked, made by vfork, spawned.
//
// --children N (of each kind in a batch), --gate; --child: is one that was spawned.
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../shared/gate.h"
#include "model.hpp"

extern char** environ;

static void wait_for(pid_t child) {
    int status;
    if (waitpid(child, &status, 0) != child || status != 0) _exit(3);
}

// In a function of its own: the child runs on this very stack.
__attribute__((noinline)) static pid_t make_by_vfork(Model& model) {
    pid_t made = vfork();
    if (made == 0) _exit(model.predict(97) != 0);
    return made;
}

int main(int argc, char** argv) {
    Model model;
    if (option_present(argc, argv, "--child")) return model.predict(97) != 0;
    const long children = option_number(argc, argv, "--children", 3);
    while (gate_next(argc, argv)) {
        for (long child = 0; child < children; child++) {
            pid_t made = fork();
            if (made == 0) _exit(model.predict(97) != 0);
            wait_for(made);
            wait_for(make_by_vfork(model));
            char name[] = "child", option[] = "--child";
            char* words[] = {name, option, nullptr};
            if (posix_spawn(&made, "/proc/self/exe", nullptr, nullptr, words, environ) != 0) return 2;
            wait_for(made);
            model.predict(child);
        }
    }
    return 0;
}
