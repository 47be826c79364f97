// A model that is called with little stack left.
#pragma once

namespace ml {

class Model {
public:
    virtual ~Model() = default;
    virtual long predict(long value) const;
};

} // namespace ml

long below(const ml::Model& model, long levels, long value);
