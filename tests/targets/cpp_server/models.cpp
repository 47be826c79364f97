// The outer calls.
#include "models.hpp"

namespace ml {

#define PREDICT(NUMBER)                                                                                                \
    unsigned long Model##NUMBER::predict(unsigned long value) const { return transform(value) * 3 + 1##NUMBER; }

EACH_MODEL(PREDICT)

} // namespace ml
