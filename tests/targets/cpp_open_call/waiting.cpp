// The inner call.
#include "model.hpp"

namespace ml {

long Waiting::predict(long value) {
    wait_inside();
    return value * 3;
}

} // namespace ml
