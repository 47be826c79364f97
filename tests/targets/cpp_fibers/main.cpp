// Fibers: stackful coroutines, each on a stack of its own, which wait in the middle of traced calls and go on on whichever
// thread is free. Between turns each thread makes traced calls on its own stack, around a turn and without one.
//
// --memory heap | mapped (where the fibers' stacks are), --threads N, --fibers N, --rounds N, --mode plain | throw (a call in
// each round is left by an exception) | signal (in each turn a handler on an alternate stack calls a model) | abandon (the
// fibers are given up in the middle of their last call), --given (threads run on stacks that the program gives them),
// --forked (all is done by a child of another thread than the first), --counts FILE (calls of each function), --gate.
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "../shared/gate.h"
#include "models.hpp"

namespace {

constexpr size_t STACK_BYTES = 1 << 16;

struct Fiber {
    ucontext_t own{};
    ucontext_t* back = nullptr;
    char* stack = nullptr;
    double sum = 0;
    bool is_done = false;
    pthread_t last_thread{};
};

std::mutex guard;
std::deque<Fiber*> ready;
std::atomic<long> running, predicted, transformed, failed, handled, served, serve_transformed;
long rounds;
std::string mode;
ml::Model model;
ml::Failing failing;
ml::Handler handler;
ml::Server server;
pthread_barrier_t together;
thread_local Fiber* current;

// Kept out of line: the address of a thread's variable must not be kept across a change of threads.
__attribute__((noinline)) Fiber* current_fiber() { return current; }

void leave_fiber(Fiber* fiber) { swapcontext(&fiber->own, fiber->back); }

__attribute__((noinline)) double run_once(double value) {
    double result = 0;
    if (mode == "throw") {
        failed++;
        try {
            result = failing.predict(value);
        } catch (const std::runtime_error&) {
            result = -1;
        }
    }
    predicted++;
    transformed++;
    return result + model.predict(value);
}

void run_fiber() {
    Fiber* fiber = current_fiber();
    for (long round = 0; round < rounds; round++) fiber->sum += run_once(double(round));
    fiber->is_done = true;
    running--;
    leave_fiber(fiber);
}

void on_signal(int) {
    volatile double result = handler.predict(0.5);
    (void)result;
    handled++;
}

// One turn of the next fiber, if there is one that waits.
bool turn() {
    Fiber* fiber = nullptr;
    {
        std::lock_guard<std::mutex> lock(guard);
        if (ready.empty()) return false;
        // One that has waited on another thread, if there is one: a fiber rather changes threads than not.
        const pthread_t self = pthread_self();
        auto next = std::find_if(ready.begin(), ready.end(), [&](Fiber* one) { return one->last_thread != self; });
        if (next == ready.end()) next = ready.begin();
        fiber = *next;
        ready.erase(next);
        fiber->last_thread = self;
    }
    ucontext_t here;
    fiber->back = &here;
    current = fiber;
    swapcontext(&here, &fiber->own);
    current = nullptr;
    if (!fiber->is_done) {
        std::lock_guard<std::mutex> lock(guard);
        ready.push_back(fiber);
    }
    return true;
}

void work() {
    pthread_barrier_wait(&together);
    std::vector<char> alternate(STACK_BYTES);
    stack_t stack{};
    stack.ss_sp = alternate.data();
    stack.ss_size = alternate.size();
    sigaltstack(&stack, nullptr);
    while (running > 0) {
        served++;
        server.predict(1.0);
    }
    stack.ss_flags = SS_DISABLE;
    sigaltstack(&stack, nullptr);
}

void* work_on_thread(void*) {
    work();
    return nullptr;
}

char* stack_of(bool mapped) {
    if (!mapped) return static_cast<char*>(malloc(STACK_BYTES));
    void* memory = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    return memory == MAP_FAILED ? nullptr : static_cast<char*>(memory);
}

void batch(int argc, char** argv) {
    const bool mapped = std::string(option_text(argc, argv, "--memory", "heap")) == "mapped";
    const bool given = option_present(argc, argv, "--given");
    const long fibers = option_number(argc, argv, "--fibers", 8);
    const long threads = option_number(argc, argv, "--threads", 1);
    std::vector<std::unique_ptr<Fiber>> all;
    running = fibers;
    for (long number = 0; number < fibers; number++) {
        all.push_back(std::make_unique<Fiber>());
        Fiber* fiber = all.back().get();
        fiber->stack = stack_of(mapped);
        getcontext(&fiber->own);
        fiber->own.uc_stack.ss_sp = fiber->stack;
        fiber->own.uc_stack.ss_size = STACK_BYTES;
        makecontext(&fiber->own, run_fiber, 0);
        ready.push_back(fiber);
    }
    pthread_barrier_init(&together, nullptr, unsigned(threads));
    std::vector<pthread_t> workers(size_t(threads - 1));
    std::vector<std::vector<char>> stacks(workers.size());
    for (size_t index = 0; index < workers.size(); index++) {
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        if (given) {
            stacks[index].resize(1 << 18);
            pthread_attr_setstack(&attributes, stacks[index].data(), stacks[index].size());
        }
        pthread_create(&workers[index], &attributes, work_on_thread, nullptr);
        pthread_attr_destroy(&attributes);
    }
    work();
    for (pthread_t worker : workers) pthread_join(worker, nullptr);
    double sum = 0;
    for (const auto& fiber : all) {
        sum += fiber->sum;
        if (mapped) {
            munmap(fiber->stack, STACK_BYTES);
        } else {
            free(fiber->stack);
        }
    }
    ready.clear();
    printf("sum %.3f\n", sum);
    fflush(stdout);
    const char* counts = option_text(argc, argv, "--counts", nullptr);
    FILE* file = counts ? fopen(counts, "w") : nullptr;
    if (!file) return;
    fprintf(file, "Model.predict %ld\nScaler.transform %ld\nFailing.predict %ld\nHandler.predict %ld\n", predicted.load(),
            transformed.load(), failed.load(), handled.load());
    fprintf(file, "Server.predict %ld\nServer.transform %ld\n", served.load(), serve_transformed.load());
    fclose(file);
}

} // namespace

namespace ml {

// Waits until a thread has time for this fiber again.
void wait_for_turn() {
    Fiber* fiber = current_fiber();
    if (mode == "abandon" && running > 0 && fiber->sum >= double(rounds)) {
        fiber->is_done = true;
        running--;
    }
    leave_fiber(fiber);
}

// On the thread's own stack: around a turn of a fiber, and with a call inside of its own.
double Server::predict(double value) const {
    if (mode == "signal") raise(SIGUSR1);
    if (!turn()) std::this_thread::yield();
    serve_transformed++;
    return transform(value) + 1;
}

double Server::transform(double value) const { return value * 3; }

} // namespace ml

int main(int argc, char** argv) {
    mode = option_text(argc, argv, "--mode", "plain");
    rounds = option_number(argc, argv, "--rounds", 20);
    struct sigaction action{};
    action.sa_handler = on_signal;
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGUSR1, &action, nullptr);
    const auto batches = [&] {
        while (gate_next(argc, argv)) batch(argc, argv);
    };
    if (!option_present(argc, argv, "--forked")) {
        batches();
        return 0;
    }
    std::thread([&] {
        const pid_t child = fork();
        if (child == 0) {
            batches();
            fflush(stdout);
            _exit(0);
        }
        waitpid(child, nullptr, 0);
    }).join();
    return 0;
}
