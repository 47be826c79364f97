// The model.
#pragma once

struct Model {
    long predict(long value);
};
