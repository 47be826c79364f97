// The outer call.
#include "model.hpp"

namespace ml {

long Server::predict(long value) { return waiting.predict(value) + 1; }

} // namespace ml
