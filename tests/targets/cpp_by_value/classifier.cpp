// Classes out of probabilities.
#include "model.hpp"

namespace ml {

std::vector<double> Classifier::predict(double value) const {
    std::vector<double> out = predict_proba(value);
    for (double& number : out) number = number > 0.5;
    return out;
}

} // namespace ml
