// The two models.
#include "models.hpp"

namespace ml {

double Interrupted::predict(double value) const {
    for (int round = 0; round < 200; round++) value = work(value);
    return value;
}

double Handler::predict(double value) const { return work(value) + 1; }

} // namespace ml
