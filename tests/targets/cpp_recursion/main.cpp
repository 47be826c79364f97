// Recursion of 1, 2, 3 ... levels: request N goes N levels deep.
//
// --deepest N (default 200), --gate.
#include "../shared/gate.h"
#include "recursor.hpp"

namespace ml {

long next_level(Recursor& recursor, long depth, long seed) { return recursor.predict(depth, seed + depth); }

} // namespace ml

int main(int argc, char** argv) {
    const long deepest = option_number(argc, argv, "--deepest", 200);
    ml::Recursor recursor;
    long sum = 0;
    while (gate_next(argc, argv)) {
        for (long depth = 1; depth <= deepest; depth++) {
            sum = (sum * 7 + recursor.predict(depth, depth)) % 1000003;
            if (depth % 20 == 0) printf("depth %ld: %ld\n", depth, sum);
        }
    }
    printf("sum %ld\n", sum);
    return 0;
}
