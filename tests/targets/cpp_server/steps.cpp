// The inner calls.
#include "models.hpp"

namespace ml {

#define TRANSFORM(NUMBER)                                                                                              \
    unsigned long Model##NUMBER::transform(unsigned long value) const {                                                \
        for (int round = 0; round < 200; round++) value = value * 6364136223846793005UL + 1##NUMBER;                   \
        return value;                                                                                                  \
    }

EACH_MODEL(TRANSFORM)

} // namespace ml
