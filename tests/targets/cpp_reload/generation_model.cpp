// The model, compiled alone so that its calls are real.
#include "generation.hpp"

long Model::predict(long value) {
    volatile long sum = 0;
    for (int turn = 0; turn < 3 * GENERATION; turn++) sum = sum + value * weight;
    return sum % 97;
}
