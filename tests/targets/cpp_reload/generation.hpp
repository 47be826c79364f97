// The model.
#pragma once

struct Model {
    long weight = 2;
    long predict(long value);
};
