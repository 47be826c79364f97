// The model, and one untraced level of the way down.
#include "model.hpp"

#include <string.h>

namespace ml {

long Model::predict(long value) const { return value * 17 % 1009; }

} // namespace ml

long below(const ml::Model& model, long levels, long value) {
    char frame[512];
    memset(frame, (int)value, sizeof frame);
    asm volatile("" : : "r"(frame) : "memory");
    const long result = levels > 0 ? below(model, levels - 1, value) : model.predict(value);
    return result + frame[levels % 512];
}
