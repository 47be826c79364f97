// Shapes that the compiler makes at -O2.
#include "shapes.hpp"

#include <stdexcept>

namespace shapes {

// `jmp *N(%rax)`
long VirtualTail::predict(long value) { return next->predict(value); }

// `jmp observe`
long SiblingCall::predict(long value) {
    if (value % 3 == 0) return observe(value) + 1;
    return observe(value + 23);
}

long JumpTable::predict(long value) {
    switch (value % 8) {
    case 0: return observe(1);
    case 1: return observe(value) + 4;
    case 2: return value * 9;
    case 3: return observe(value * 2) - 1;
    case 4: return -value;
    case 5: return observe(-value);
    case 6: return 1000 - observe(value);
    default: return observe(5) * value;
    }
}

// The throwing part goes to a section of its own, `.text.unlikely`, and comes back from there for small values.
long ColdPart::predict(long value) {
    if (__builtin_expect(value % 10 == 9, 0)) {
        try {
            if (observe(value) > 0) throw std::runtime_error("cold");
        } catch (const std::exception& error) {
            return error.what()[0];
        }
    }
    return observe(value) * 2;
}

long NeverReturns::predict(long value) { throw value; }

// The frame is larger than a page.
long LargeFrame::predict(long value) {
    volatile char bytes[20000];
    bytes[0] = (char)value;
    bytes[19999] = 1;
    return observe(bytes[0]) + bytes[19999];
}

} // namespace shapes
