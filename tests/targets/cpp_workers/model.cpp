// The outer call.
#include "model.hpp"

namespace ml {

int Model::predict(int value) { return transform(value) + 1; }

} // namespace ml
