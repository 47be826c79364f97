// One untraced level of the way down.
#include <string.h>

#include "model.hpp"

long below(const ml::Model& model, long levels, long value) {
    char frame[512];
    memset(frame, (int)value, sizeof frame);
    asm volatile("" : : "r"(frame) : "memory");
    const long result = levels > 0 ? below(model, levels - 1, value) : model.predict(value);
    return result + frame[levels % 512];
}
