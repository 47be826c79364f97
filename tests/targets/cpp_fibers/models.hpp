// Models whose calls wait in the middle, one that throws, one that a signal handler uses, and one that is around all. None
// becomes part of its caller.
#pragma once

#include <stdexcept>

namespace ml {

void wait_for_turn();

class Scaler {
public:
    virtual ~Scaler() = default;
    __attribute__((noinline)) virtual double transform(double value) const;
};

class Model {
public:
    virtual ~Model() = default;
    __attribute__((noinline)) virtual double predict(double value) const;

private:
    Scaler scaler;
};

class Failing {
public:
    virtual ~Failing() = default;
    __attribute__((noinline)) virtual double predict(double value) const;
};

class Handler {
public:
    virtual ~Handler() = default;
    __attribute__((noinline)) virtual double predict(double value) const;
};

class Server {
public:
    virtual ~Server() = default;
    __attribute__((noinline)) virtual double predict(double value) const;
    __attribute__((noinline)) virtual double transform(double value) const;
};

} // namespace ml
