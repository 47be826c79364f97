// Logistic regression: probabilities.
#include <cmath>

#include "models.hpp"
#include "truth.hpp"

namespace ml {

void LogisticRegression::predict_proba(const Rows& rows, Numbers& out) const {
    truth::enter("LogisticRegression.predict_proba");
    out.assign(rows.count, 0);
    for (std::size_t row = 0; row < rows.count; row++) {
        double sum = 0;
        for (std::size_t column = 0; column < rows.columns; column++) sum += weights[column] * rows.at(row, column);
        out[row] = 1 / (1 + std::exp(-sum));
    }
    truth::leave();
}

} // namespace ml
