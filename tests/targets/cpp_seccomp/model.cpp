// The outer method.
#include "model.hpp"

namespace ml {

double Model::predict(double value) const { return predict_proba(value) > 0.5 ? 1 : 0; }

} // namespace ml
