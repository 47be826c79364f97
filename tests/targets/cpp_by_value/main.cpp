// Every request: Chain.predict(Classifier.predict(Classifier.predict_proba),Classifier.predict(Classifier.predict_proba))
//
// --requests N, --gate.
#include "../shared/gate.h"
#include "model.hpp"

int main(int argc, char** argv) {
    const long requests = option_number(argc, argv, "--requests", 50);
    ml::Chain chain;
    while (gate_next(argc, argv)) {
        double sum = 0;
        for (long request = 0; request < requests; request++) {
            for (double value : chain.predict(double(request))) sum = sum * 1.5 + value;
        }
        printf("sum %.6e\n", sum);
    }
    return 0;
}
