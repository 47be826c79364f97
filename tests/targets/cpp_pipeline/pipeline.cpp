// A pipeline: every step but the last transforms, the last one predicts.
#include "models.hpp"
#include "truth.hpp"

namespace ml {

void Pipeline::fit(const Rows& rows, const Numbers& targets) {
    truth::enter("Pipeline.fit");
    Rows current = rows;
    for (std::size_t step = 0; step < steps.size(); step++) {
        steps[step].second->fit(current, targets);
        if (step + 1 == steps.size()) break;
        Rows next;
        steps[step].second->transform(current, next);
        current = std::move(next);
    }
    truth::leave();
}

void Pipeline::transform(const Rows& rows, Rows& out) const {
    truth::enter("Pipeline.transform");
    out = rows;
    for (const auto& step : steps) {
        Rows next;
        step.second->transform(out, next);
        out = std::move(next);
    }
    truth::leave();
}

void Pipeline::predict(const Rows& rows, Numbers& out) const {
    truth::enter("Pipeline.predict");
    Rows current = rows;
    for (std::size_t step = 0; step + 1 < steps.size(); step++) {
        Rows next;
        steps[step].second->transform(current, next);
        current = std::move(next);
    }
    steps.back().second->predict(current, out);
    truth::leave();
}

} // namespace ml
