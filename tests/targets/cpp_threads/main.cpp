// Threads that all use one model, and short-lived threads that come and go.
//
// --threads N (default 8), --requests N (each thread), --short-lived N (threads with one request each), --gate.
#include <thread>
#include <vector>

#include "../shared/gate.h"
#include "worker.hpp"

int main(int argc, char** argv) {
    const long threads = option_number(argc, argv, "--threads", 8);
    const long requests = option_number(argc, argv, "--requests", 100);
    const long short_lived = option_number(argc, argv, "--short-lived", 0);
    ml::Worker worker;
    unsigned long total = 0;
    while (gate_next(argc, argv)) {
        std::vector<unsigned long> sums(threads + short_lived);
        std::vector<std::thread> running;
        for (long thread = 0; thread < threads; thread++) {
            running.emplace_back([&, thread] {
                for (long request = 0; request < requests; request++) sums[thread] += worker.predict(thread * requests + request);
            });
        }
        for (long thread = 0; thread < short_lived; thread++) {
            std::thread([&, thread] { sums[threads + thread] = worker.predict(thread); }).join();
        }
        for (auto& thread : running) thread.join();
        for (unsigned long sum : sums) total = total * 31 + sum;
        printf("total %lu\n", total);
    }
    return 0;
}
