// The outer call: two inner ones.
#include "worker.hpp"

namespace ml {

unsigned long Worker::predict(unsigned long value) const { return leaf.predict_proba(value) ^ leaf.predict_proba(value + 1) >> 7; }

} // namespace ml
