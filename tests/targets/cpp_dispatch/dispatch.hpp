// Functions that choose by a number, so that a compiler makes tables of jumps; what is rare leaves by an exception, by
// longjmp, or with the thread.
#pragma once

#include <csetjmp>

namespace ml {

class Kernel {
public:
    // Calls nothing but for the kinds that it does not know.
    [[gnu::noinline]] double transform(double value, int kind) const;
    // Calls nothing at all.
    [[gnu::noinline]] double predict(double value, int kind) const;
    double scale = 2;
};

// Its frame is below the one that leaves.
class Model {
public:
    double predict(double value, int kind, int leave) const;
    Kernel kernel;
};

} // namespace ml

extern thread_local std::jmp_buf way_out;
