// Scaling to mean 0 and deviation 1.
#include <cmath>

#include "models.hpp"
#include "truth.hpp"

namespace ml {

void StandardScaler::fit(const Rows& rows, const Numbers&) {
    truth::enter("StandardScaler.fit");
    means.assign(rows.columns, 0);
    deviations.assign(rows.columns, 0);
    for (std::size_t column = 0; column < rows.columns; column++) {
        for (std::size_t row = 0; row < rows.count; row++) means[column] += rows.at(row, column);
        means[column] /= double(rows.count);
        for (std::size_t row = 0; row < rows.count; row++) deviations[column] += std::pow(rows.at(row, column) - means[column], 2);
        deviations[column] = std::sqrt(deviations[column] / double(rows.count)) + 1e-9;
    }
    truth::leave();
}

void StandardScaler::transform(const Rows& rows, Rows& out) const {
    truth::enter("StandardScaler.transform");
    out = rows;
    for (std::size_t row = 0; row < rows.count; row++) {
        for (std::size_t column = 0; column < rows.columns; column++) {
            out.values[row * rows.columns + column] = (rows.at(row, column) - means[column]) / deviations[column];
        }
    }
    truth::leave();
}

} // namespace ml
