// The inner call.
#include "worker.hpp"

namespace ml {

unsigned long Leaf::predict_proba(unsigned long value) const {
    for (int round = 0; round < 50; round++) value = value * 6364136223846793005UL + 1442695040888963407UL;
    return value;
}

} // namespace ml
