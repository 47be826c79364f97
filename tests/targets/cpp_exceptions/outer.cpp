// The outermost traced frames.
#include <stdexcept>

#include "frames.hpp"

namespace ml {

int Outer::predict(int value, Leave leave) {
    Cleanup cleanup;
    return middle.predict(value, leave) + 1;
}

int Guarded::predict(int value, Leave leave) noexcept {
    try {
        return middle.predict(value, leave) + 2;
    } catch (...) {
        return -1;
    }
}

int Guarded::predict_proba(int value, Leave leave) noexcept { return middle.predict(value, leave) + 3; }

} // namespace ml
