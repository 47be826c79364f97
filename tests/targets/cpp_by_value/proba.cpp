// Probabilities.
#include "model.hpp"

namespace ml {

std::vector<double> Classifier::predict_proba(double value) const { return {value / (1 + value), 1 / (1 + value)}; }

} // namespace ml
