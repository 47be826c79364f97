// A model that calls itself, through a function in another file so that the compiler keeps every level.
#pragma once

namespace ml {

class Recursor {
public:
    virtual ~Recursor() = default;
    virtual long predict(long depth, long seed);
};

long next_level(Recursor& recursor, long depth, long seed);

} // namespace ml
