// A model used by many threads at once, and one that it calls.
#pragma once

namespace ml {

class Leaf {
public:
    virtual ~Leaf() = default;
    virtual unsigned long predict_proba(unsigned long value) const;
};

class Worker {
public:
    virtual ~Worker() = default;
    virtual unsigned long predict(unsigned long value) const;

    Leaf leaf;
};

} // namespace ml
