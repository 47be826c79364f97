// The model.
#include "model.hpp"

namespace ml {

long Model::predict(long value) const { return value * 17 % 1009; }

} // namespace ml
