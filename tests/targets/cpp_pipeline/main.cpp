// A model server without the server: requests of five kinds, on one or more threads.
//
// --requests N (a batch), --threads N, --trees N, --kind K (only that kind), --truth FILE, --pause-us N, --gate.
// The truth file gets a line for each request: the thread's id and the call tree.
#include <sys/syscall.h>
#include <unistd.h>

#include <fstream>
#include <mutex>
#include <thread>

#include "../shared/gate.h"
#include "models.hpp"
#include "truth.hpp"

namespace {

struct Models {
    ml::Pipeline logistic;
    ml::Pipeline forest;
    ml::Pipeline nested;
    ml::StandardScaler scaler;
};

ml::Rows make_rows(long request) {
    ml::Rows rows{8, 4, {}};
    unsigned long state = 88172645463325252UL + (unsigned long)request;
    for (std::size_t index = 0; index < rows.count * rows.columns; index++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        rows.values.push_back(double(state % 2000) / 1000 - 1);
    }
    return rows;
}

std::unique_ptr<ml::Pipeline> make_inner() {
    auto inner = std::make_unique<ml::Pipeline>();
    inner->add("scaler", std::make_unique<ml::StandardScaler>());
    return inner;
}

double serve(Models& models, long request, long kind, const ml::Numbers& targets) {
    const ml::Rows rows = make_rows(request);
    ml::Numbers out;
    switch (kind) {
    case 0: models.logistic.predict(rows, out); break;
    case 1: models.forest.predict(rows, out); break;
    case 2: models.nested.predict(rows, out); break;
    case 3: {
        ml::Rows scaled;
        models.scaler.transform(rows, scaled);
        out = scaled.values;
        break;
    }
    default: {
        ml::Pipeline pipeline;
        pipeline.add("scaler", std::make_unique<ml::StandardScaler>());
        pipeline.add("classifier", std::make_unique<ml::LogisticRegression>());
        pipeline.fit(rows, targets);
        out = targets;
    }
    }
    double sum = 0;
    for (double value : out) sum += value;
    return sum;
}

} // namespace

int main(int argc, char** argv) {
    const long requests = option_number(argc, argv, "--requests", 10);
    const long threads = option_number(argc, argv, "--threads", 1);
    const long only = option_number(argc, argv, "--kind", -1);
    const long pause = option_number(argc, argv, "--pause-us", 0);
    const char* truth_file = option_text(argc, argv, "--truth", nullptr);

    Models models;
    const ml::Rows training = make_rows(-1);
    const ml::Numbers targets{0, 1, 0, 1, 1, 0, 1, 0};
    models.logistic.add("scaler", std::make_unique<ml::StandardScaler>());
    models.logistic.add("classifier", std::make_unique<ml::LogisticRegression>());
    models.forest.add("scaler", std::make_unique<ml::StandardScaler>());
    models.forest.add("forest", std::make_unique<ml::RandomForest>(option_number(argc, argv, "--trees", 20)));
    models.nested.add("preparation", make_inner());
    models.nested.add("classifier", std::make_unique<ml::LogisticRegression>());
    models.logistic.fit(training, targets);
    models.forest.fit(training, targets);
    models.nested.fit(training, targets);
    models.scaler.fit(training, targets);
    truth::take();

    std::mutex truth_lock;
    std::ofstream truth;
    if (truth_file) truth.open(truth_file);
    double checksum = 0;
    while (gate_next(argc, argv)) {
        std::vector<ml::Numbers> results(threads);
        auto work = [&](long worker) {
            for (long request = worker; request < requests; request += threads) {
                const double sum = serve(models, request, only < 0 ? request % 5 : only, targets);
                results[worker].push_back(sum);
                const std::string tree = truth::take();
                if (truth_file) {
                    const std::lock_guard<std::mutex> guard(truth_lock);
                    truth << syscall(SYS_gettid) << ' ' << tree << '\n';
                }
                if (pause) usleep(pause);
            }
        };
        if (threads == 1) {
            work(0);
        } else {
            std::vector<std::thread> running;
            for (long worker = 0; worker < threads; worker++) running.emplace_back(work, worker);
            for (auto& thread : running) thread.join();
        }
        for (long request = 0; request < requests; request++) {
            const double sum = results[request % threads][request / threads];
            checksum += sum * double(request + 1);
            if (request < 20) printf("request %ld: %.6f\n", request, sum);
        }
        truth.flush();
        printf("checksum %.6f\n", checksum);
    }
    return 0;
}
