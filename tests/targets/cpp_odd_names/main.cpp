// Each request calls every function once, Scaler.transform twice.
//
// --requests N, --gate.
#include "../shared/gate.h"
#include "models.hpp"

namespace ml {
template <> double Wide<Columns>::predict(double value) const;
}

static double later(const ml::Later& model, double value) {
    ml::Job job = model.predict(value);
    while (!job.handle.done()) job.handle.resume();
    const double result = job.handle.promise().result;
    job.handle.destroy();
    return result;
}

int main(int argc, char** argv) {
    const long requests = option_number(argc, argv, "--requests", 40);
    ml::Forest forest;
    ml::Diamond diamond;
    ml::Fits* volatile fits = &forest;
    ml::Predicts* volatile predicts = &forest;
    ml::Predicts* volatile shared = &diamond;
    while (gate_next(argc, argv)) {
        double sum = 0;
        for (long request = 0; request < requests; request++) {
            const double value = double(request);
            sum += fits->fit(value) + predicts->predict(value) + shared->predict(value);
            sum += ml::Churn().predict(value) + ml::Fraud().predict(value);
            sum += ml::Schätzer().fit(value) + ml::Wide<ml::Columns>().predict(value);
            sum += later(ml::Later(), value);
        }
        printf("sum %.6e\n", sum);
    }
    return 0;
}
