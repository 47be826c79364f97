// The model.
#pragma once

struct Model {
    long weight = 2;
    virtual long predict(long value);
};
