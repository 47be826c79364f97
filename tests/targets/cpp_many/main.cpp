// More functions than are traced in one file.
//
// --requests N, --gate.
#include "../shared/gate.h"

struct Model10000 {
    double predict(double value);
};

struct Scaler {
    double transform(double value);
};

[[gnu::noinline]] double Scaler::transform(double value) {
    volatile double kept = value;
    return kept;
}

int main(int argc, char** argv) {
    const long requests = option_number(argc, argv, "--requests", 40);
    Model10000 model;
    Scaler scaler;
    while (gate_next(argc, argv)) {
        double sum = 0;
        for (long request = 0; request < requests; request++) sum += scaler.transform(model.predict(double(request)));
        printf("sum %.6e\n", sum);
    }
    return 0;
}
