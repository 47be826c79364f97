// A decision tree with one decision.
#include "models.hpp"
#include "truth.hpp"

namespace ml {

void DecisionTree::fit(const Rows& rows, const Numbers&) {
    truth::enter("DecisionTree.fit");
    threshold = 0;
    for (std::size_t row = 0; row < rows.count; row++) threshold += rows.at(row, column % rows.columns) / double(rows.count);
    truth::leave();
}

void DecisionTree::predict(const Rows& rows, Numbers& out) const {
    truth::enter("DecisionTree.predict");
    out.assign(rows.count, 0);
    for (std::size_t row = 0; row < rows.count; row++) out[row] = rows.at(row, column % rows.columns) > threshold ? 1 : 0;
    truth::leave();
}

} // namespace ml
