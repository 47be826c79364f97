// The inner call, in a file of its own so that it is not copied into the outer one.
#include "model.hpp"

namespace ml {

int Model::transform(int value) { return value * 2; }

} // namespace ml
