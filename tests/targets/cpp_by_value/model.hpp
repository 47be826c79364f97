// Methods that return an object by value: their first argument is where to put it, the object is the second.
#pragma once

#include <vector>

namespace ml {

class Classifier {
public:
    virtual ~Classifier() = default;
    virtual std::vector<double> predict(double value) const;
    virtual std::vector<double> predict_proba(double value) const;
};

class Chain {
public:
    virtual ~Chain() = default;
    virtual std::vector<double> predict(double value) const;

    Classifier first;
    Classifier second;
};

} // namespace ml
