// A method that an exception may cross, as far as anybody can tell: it calls through a pointer.
#include "model.hpp"

namespace bench {

long Model::predict(long value) const { return step(value) + offset; }

}  // namespace bench
