// The kernels, in a file of their own, so that calls of them are real.
#include "dispatch.hpp"

#include <pthread.h>

#include <stdexcept>

thread_local std::jmp_buf way_out;

namespace ml {

double Kernel::transform(double value, int kind) const {
    switch (kind) {
    case 0: return value * scale;
    case 1: return value > 0 ? value : 0;
    case 2: throw std::out_of_range("no such kernel");
    case 3: return value * value + scale;
    case 4: return scale / (value + 1);
    case 5: return value - scale;
    case 6: throw std::invalid_argument("a kernel that needs a matrix");
    case 7: return value * 3 - scale;
    }
    return value > scale ? value : -1;
}

double Kernel::predict(double value, int kind) const {
    switch (kind) {
    case 0: return value - scale;
    case 1: return value * scale + 1;
    case 2: return value * value;
    case 3: return scale / (value + 2);
    case 4: return value > scale ? scale : value;
    case 5: return value + 7;
    }
    return -scale;
}

double Model::predict(double value, int kind, int leave) const {
    const double result = kernel.predict(kernel.transform(value, kind), kind);
    if (kind == 5 && leave == 1) std::longjmp(way_out, 1);
    if (kind == 5 && leave == 2) pthread_exit(nullptr);
    if (kind == 5 && leave == 3) {
        pthread_cancel(pthread_self());
        pthread_testcancel();
    }
    return result;
}

} // namespace ml
