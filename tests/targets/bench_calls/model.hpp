#pragma once

namespace bench {

class Model {
public:
    Model(long (*step)(long), long offset) : step(step), offset(offset) {}
    long predict(long value) const;

private:
    long (*step)(long);
    long offset;
};

}  // namespace bench
