// One level of the recursion.
#include "recursor.hpp"

namespace ml {

long Recursor::predict(long depth, long seed) {
    if (depth <= 1) return seed;
    return next_level(*this, depth - 1, seed) * 31 % 1000003 + depth;
}

} // namespace ml
