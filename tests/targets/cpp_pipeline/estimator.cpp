// What an estimator cannot do.
#include "models.hpp"

#include <stdexcept>

namespace ml {

void Estimator::transform(const Rows&, Rows&) const { throw std::logic_error("this estimator transforms nothing"); }
void Estimator::predict(const Rows&, Numbers&) const { throw std::logic_error("this estimator predicts nothing"); }
void Estimator::predict_proba(const Rows&, Numbers&) const { throw std::logic_error("this estimator knows no probabilities"); }

} // namespace ml
