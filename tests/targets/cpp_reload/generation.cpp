// One generation of a model. In the second one the functions lie elsewhere and are other code.
#include "generation.hpp"

#if GENERATION == 2
extern "C" long generation_weight(long value) {
    volatile long sum = value;
    for (int turn = 0; turn < 9; turn++) sum = sum * 3 + turn;
    return sum & 1;
}
#endif

extern "C" long generation_run(long value) {
#if GENERATION == 2
    value += generation_weight(value);
#endif
    Model model;
    return model.predict(value);
}
