// A timer's signal handler calls `predict` while `predict` is open.
//
// --mode plain | alternate (the handler runs on a stack of its own, at lower addresses) | above (at higher addresses),
// --requests N, --counts FILE (calls of each model), --gate. What is printed does not depend on when signals arrive.
#include <signal.h>
#include <sys/time.h>

#include <cmath>
#include <string>
#include <thread>

#include "../shared/gate.h"
#include "models.hpp"

namespace ml {

double work(double value) {
    for (int round = 0; round < 100; round++) value = std::sin(value) + 1.25;
    return value;
}

} // namespace ml

namespace {

ml::Interrupted interrupted;
ml::Handler handler;
volatile sig_atomic_t handled = 0;
alignas(16) char low_stack[1 << 16];

void on_alarm(int) {
    volatile double result = handler.predict(0.5);
    (void)result;
    handled = handled + 1;
}

void set_timer(long microseconds) {
    itimerval timer{{0, microseconds}, {0, microseconds}};
    setitimer(ITIMER_REAL, &timer, nullptr);
}

void install(char* stack) {
    if (stack) {
        stack_t alternate{};
        alternate.ss_sp = stack;
        alternate.ss_size = 1 << 16;
        sigaltstack(&alternate, nullptr);
    }
    struct sigaction action{};
    action.sa_handler = on_alarm;
    action.sa_flags = SA_RESTART | (stack ? SA_ONSTACK : 0);
    sigaction(SIGALRM, &action, nullptr);
}

double serve(long requests) {
    double sum = 0;
    set_timer(500);
    for (long request = 0; request < requests; request++) sum += interrupted.predict(double(request));
    set_timer(0);
    return sum;
}

} // namespace

int main(int argc, char** argv) {
    const std::string mode = option_text(argc, argv, "--mode", "plain");
    const long requests = option_number(argc, argv, "--requests", 200);
    const char* counts = option_text(argc, argv, "--counts", nullptr);
    long served = 0;
    char high_stack[1 << 16];
    while (gate_next(argc, argv)) {
        double sum = 0;
        if (mode == "above") {
            // The first thread's stack lies above those of all others. It blocks the signal and lends a piece.
            sigset_t alarm;
            sigemptyset(&alarm);
            sigaddset(&alarm, SIGALRM);
            pthread_sigmask(SIG_BLOCK, &alarm, nullptr);
            std::thread([&] {
                pthread_sigmask(SIG_UNBLOCK, &alarm, nullptr);
                install(high_stack);
                sum = serve(requests);
            }).join();
        } else {
            install(mode == "alternate" ? low_stack : nullptr);
            sum = serve(requests);
        }
        served += requests;
        printf("sum %.9f\n", sum);
        if (counts) {
            FILE* file = fopen(counts, "w");
            if (!file) return 1;
            fprintf(file, "Interrupted.predict %ld\nHandler.predict %ld\n", served, (long)handled);
            fclose(file);
        }
    }
    return 0;
}
