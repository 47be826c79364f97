// Two classifiers, one after the other.
#include "model.hpp"

namespace ml {

std::vector<double> Chain::predict(double value) const {
    const std::vector<double> out = first.predict(value);
    return second.predict(out[0] + 2 * out[1]);
}

} // namespace ml
