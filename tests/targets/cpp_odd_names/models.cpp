// What they do.
#include "models.hpp"

namespace ml {

static volatile double sink;

double Forest::fit(double value) {
    sink = value;
    return shift + value;
}

double Forest::predict(double value) {
    sink = value;
    return scale * value;
}

double Diamond::predict(double value) {
    sink = value;
    return scale * value + left;
}

double Fraud::predict(double value) const {
    sink = value;
    return weight * value;
}

double Schätzer::fit(double value) const {
    sink = value;
    return value + 1;
}

template <> double Wide<Columns>::predict(double value) const {
    sink = value;
    return value + 2;
}

Job Later::predict(double value) const {
    const double once = scaler.transform(value);
    co_await std::suspend_always{};
    co_return scaler.transform(once);
}

} // namespace ml

asm(".globl _ZNK2ml5Churn7predictEd\n"
    ".type _ZNK2ml5Churn7predictEd, @function\n"
    ".set _ZNK2ml5Churn7predictEd, _ZNK2ml5Fraud7predictEd\n");
