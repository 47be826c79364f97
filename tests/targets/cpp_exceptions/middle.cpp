// The frames in between: passing on, catching, catching everything and throwing again.
#include <stdexcept>

#include "frames.hpp"

namespace ml {

int Middle::predict(int value, Leave leave) {
    Cleanup cleanup;
    if (rethrows) {
        try {
            return inner.predict(value, leave) + 1;
        } catch (...) {
            Cleanup::count += 100;
            throw;
        }
    }
    if (catches) {
        try {
            return inner.predict(value, leave) + 1;
        } catch (const std::runtime_error& error) {
            return -int(std::string(error.what()).size());
        }
    }
    return inner.predict(value, leave) + 1;
}

int Plain::predict(int value, Leave leave) { return predict_proba(value, leave) + 1; }

} // namespace ml
