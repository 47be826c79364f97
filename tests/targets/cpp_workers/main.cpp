// A server that forks workers in its first batch and has them work in the later ones, as pre-forking servers do.
//
// --workers N, --requests N (each worker, each batch), --exec: a worker executes this program again, --gate. The
// parent predicts once for each worker and batch.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "../shared/gate.h"
#include "model.hpp"

namespace {

struct Worker {
    pid_t pid;
    int orders;
    int results;
};

// Answers each byte with a sum, until there are no more.
int work(int orders, int results, long requests) {
    ml::Model model;
    char order;
    int sum = 0;
    if (write(results, &sum, sizeof sum) != sizeof sum) return 1;
    while (read(orders, &order, 1) == 1) {
        sum = 0;
        for (int request = 0; request < requests; request++) sum += model.predict(request);
        if (write(results, &sum, sizeof sum) != sizeof sum) return 1;
    }
    return 0;
}

Worker start(long requests, bool executes, const std::vector<Worker>& others) {
    int orders[2], results[2];
    if (pipe(orders) != 0 || pipe(results) != 0) exit(1);
    fflush(stdout);
    const pid_t pid = fork();
    if (pid != 0) {
        close(orders[0]);
        close(results[1]);
        return {pid, orders[1], results[0]};
    }
    // The ends of the others must not stay open here: their workers wait for the end of their orders.
    for (const Worker& other : others) {
        close(other.orders);
        close(other.results);
    }
    close(orders[1]);
    close(results[0]);
    if (executes) {
        dup2(orders[0], 0);
        dup2(results[1], 1);
        const std::string count = std::to_string(requests);
        execl("/proc/self/exe", "worker", "--worker", "--requests", count.c_str(), nullptr);
        _exit(99);
    }
    _exit(work(orders[0], results[1], requests));
}

int answer(const Worker& worker) {
    int sum = 0;
    if (read(worker.results, &sum, sizeof sum) != sizeof sum) return -1;
    return sum;
}

} // namespace

int main(int argc, char** argv) {
    const long requests = option_number(argc, argv, "--requests", 10);
    if (option_present(argc, argv, "--worker")) return work(0, 1, requests);
    const long count = option_number(argc, argv, "--workers", 2);
    const bool executes = option_present(argc, argv, "--exec");
    std::vector<Worker> workers;
    ml::Model model;
    while (gate_next(argc, argv)) {
        if (workers.empty()) {
            for (int index = 0; index < count; index++) workers.push_back(start(requests, executes, workers));
            for (const Worker& worker : workers) printf("worker begins with %d\n", answer(worker));
            continue;
        }
        for (const Worker& worker : workers) {
            if (write(worker.orders, "g", 1) != 1) return 1;
        }
        for (const Worker& worker : workers) printf("worker %d, parent %d\n", answer(worker), model.predict(1));
    }
    int failed = 0;
    for (const Worker& worker : workers) {
        int status = 0;
        close(worker.orders);
        waitpid(worker.pid, &status, 0);
        failed += status != 0;
    }
    return failed == 0 ? 0 : 1;
}
