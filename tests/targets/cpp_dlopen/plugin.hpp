// A model in a shared object that comes and goes.
#pragma once

namespace plugin {

class Model {
public:
    virtual ~Model() = default;
    virtual long predict(long value);
};

} // namespace plugin
