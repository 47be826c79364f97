// A small copy of the shape of scikit-learn: virtual estimators, a pipeline with named steps, a forest of trees.
// Every method that calls another one lives in a file of its own, so that the compiler cannot inline the call.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace ml {

struct Rows {
    std::size_t count = 0;
    std::size_t columns = 0;
    std::vector<double> values;

    double at(std::size_t row, std::size_t column) const { return values[row * columns + column]; }
};

using Numbers = std::vector<double>;

class Estimator {
public:
    virtual ~Estimator() = default;
    virtual void fit(const Rows& rows, const Numbers& targets) = 0;
    virtual void transform(const Rows& rows, Rows& out) const;
    virtual void predict(const Rows& rows, Numbers& out) const;
    virtual void predict_proba(const Rows& rows, Numbers& out) const;
};

class StandardScaler : public Estimator {
public:
    void fit(const Rows& rows, const Numbers& targets) override;
    void transform(const Rows& rows, Rows& out) const override;

private:
    Numbers means;
    Numbers deviations;
};

class LogisticRegression : public Estimator {
public:
    void fit(const Rows& rows, const Numbers& targets) override;
    void predict(const Rows& rows, Numbers& out) const override;
    void predict_proba(const Rows& rows, Numbers& out) const override;

private:
    Numbers weights;
};

class DecisionTree : public Estimator {
public:
    explicit DecisionTree(std::size_t column) : column(column) {}
    void fit(const Rows& rows, const Numbers& targets) override;
    void predict(const Rows& rows, Numbers& out) const override;

private:
    std::size_t column;
    double threshold = 0;
};

class RandomForest : public Estimator {
public:
    explicit RandomForest(std::size_t trees);
    void fit(const Rows& rows, const Numbers& targets) override;
    void predict(const Rows& rows, Numbers& out) const override;

private:
    std::vector<std::unique_ptr<Estimator>> estimators;
};

class Pipeline : public Estimator {
public:
    void add(std::string name, std::unique_ptr<Estimator> step) { steps.emplace_back(std::move(name), std::move(step)); }
    void fit(const Rows& rows, const Numbers& targets) override;
    void transform(const Rows& rows, Rows& out) const override;
    void predict(const Rows& rows, Numbers& out) const override;

private:
    std::vector<std::pair<std::string, std::unique_ptr<Estimator>>> steps;
};

} // namespace ml
