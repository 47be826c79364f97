// Logistic regression: fitting, and classes out of probabilities.
#include "models.hpp"
#include "truth.hpp"

namespace ml {

void LogisticRegression::fit(const Rows& rows, const Numbers& targets) {
    truth::enter("LogisticRegression.fit");
    weights.assign(rows.columns, 0);
    for (std::size_t row = 0; row < rows.count; row++) {
        for (std::size_t column = 0; column < rows.columns; column++) {
            weights[column] += (targets[row] - 0.5) * rows.at(row, column) / double(rows.count);
        }
    }
    truth::leave();
}

void LogisticRegression::predict(const Rows& rows, Numbers& out) const {
    truth::enter("LogisticRegression.predict");
    predict_proba(rows, out);
    for (double& value : out) value = value > 0.5 ? 1 : 0;
    truth::leave();
}

} // namespace ml
