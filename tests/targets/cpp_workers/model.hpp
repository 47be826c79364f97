// A model that workers share.
#pragma once

namespace ml {

class Model {
public:
    virtual ~Model() = default;
    virtual int predict(int value);
    virtual int transform(int value);
};

} // namespace ml
