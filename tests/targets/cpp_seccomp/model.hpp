// A model that makes no system call.
#pragma once

namespace ml {

class Model {
public:
    virtual ~Model() = default;
    virtual double predict(double value) const;
    virtual double predict_proba(double value) const;
};

} // namespace ml
