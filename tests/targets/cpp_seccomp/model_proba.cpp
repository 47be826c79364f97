// The inner method.
#include "model.hpp"

namespace ml {

double Model::predict_proba(double value) const {
    for (int round = 0; round < 20; round++) value = value * 3.7 * (1 - value);
    return value;
}

} // namespace ml
