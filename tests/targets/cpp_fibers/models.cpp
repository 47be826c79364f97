// The models.
#include "models.hpp"

namespace ml {

double Scaler::transform(double value) const {
    wait_for_turn();
    return value * 2;
}

double Model::predict(double value) const {
    const double scaled = scaler.transform(value);
    wait_for_turn();
    return scaled + 1;
}

double Failing::predict(double value) const {
    wait_for_turn();
    if (value >= 0) throw std::runtime_error("refused");
    return value;
}

double Handler::predict(double value) const { return value + 1; }

} // namespace ml
