// A model that is interrupted, and one that the signal handler uses.
#pragma once

namespace ml {

class Interrupted {
public:
    virtual ~Interrupted() = default;
    virtual double predict(double value) const;
};

class Handler {
public:
    virtual ~Handler() = default;
    virtual double predict(double value) const;
};

double work(double value);

} // namespace ml
