// A forest whose trees have `fit` and `predict` too.
#include "models.hpp"
#include "truth.hpp"

namespace ml {

RandomForest::RandomForest(std::size_t trees) {
    for (std::size_t tree = 0; tree < trees; tree++) estimators.push_back(std::make_unique<DecisionTree>(tree));
}

void RandomForest::fit(const Rows& rows, const Numbers& targets) {
    truth::enter("RandomForest.fit");
    for (auto& tree : estimators) tree->fit(rows, targets);
    truth::leave();
}

void RandomForest::predict(const Rows& rows, Numbers& out) const {
    truth::enter("RandomForest.predict");
    Numbers votes;
    out.assign(rows.count, 0);
    for (const auto& tree : estimators) {
        tree->predict(rows, votes);
        for (std::size_t row = 0; row < rows.count; row++) out[row] += votes[row] / double(estimators.size());
    }
    truth::leave();
}

} // namespace ml
