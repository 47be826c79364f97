// Functions whose symbols are out of the ordinary.
#pragma once

#include <coroutine>
#include <utility>

namespace ml {

// Two bases in two places: calls through a pointer to one of them pass a thunk, which corrects the pointer.
struct Fits {
    virtual ~Fits() = default;
    virtual double fit(double value) = 0;
    double shift = 1;
};

struct Predicts {
    virtual ~Predicts() = default;
    virtual double predict(double value) = 0;
    double scale = 2;
};

struct Forest : Fits, Predicts {
    double fit(double value) override;
    double predict(double value) override;
};

// A base that is shared: compilers may put a copy of the whole method into the thunk.
struct Left : virtual Predicts {
    double left = 3;
};

struct Diamond : Left, virtual Predicts {
    double predict(double value) override;
};

// One code with two names, as linkers leave it that fold what is equal.
struct Churn {
    double weight = 4;
    double predict(double value) const;
};

struct Fraud {
    double weight = 5;
    double predict(double value) const;
};

// The symbol has identifiers that are not ASCII.
struct Schätzer {
    double fit(double value) const;
};

// The symbol has some ten thousand bytes.
template <class Columns> struct Wide {
    double predict(double value) const;
};

using Columns = std::make_integer_sequence<int, 3000>;

// A coroutine: the call makes it, the work is done when it is resumed.
struct Job {
    struct promise_type {
        double result = 0;
        Job get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
        std::suspend_always initial_suspend() noexcept { return {}; }
        std::suspend_always final_suspend() noexcept { return {}; }
        void return_value(double value) { result = value; }
        void unhandled_exception() {}
    };
    std::coroutine_handle<promise_type> handle;
};

struct Scaler {
    double transform(double value) const;
};

struct Later {
    Scaler scaler;
    Job predict(double value) const;
};

} // namespace ml
