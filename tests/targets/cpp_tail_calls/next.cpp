// Where the virtual tail call goes; in a file of its own so that the compiler does not look into it.
#include "shapes.hpp"

namespace shapes {

long Next::predict(long value) { return observe(value + 19); }

} // namespace shapes
