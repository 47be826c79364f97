// Bookkeeping of truth mode, a string for each thread.
#include "truth.hpp"

#include <utility>

namespace {
thread_local std::string tree;
}

namespace truth {

void enter(const char* name) {
    if (!tree.empty() && tree.back() != '(') tree += ',';
    tree += name;
    tree += '(';
}

void leave() {
    if (tree.back() == '(') {
        tree.pop_back();
    } else {
        tree += ')';
    }
}

std::string take() { return std::exchange(tree, {}); }

} // namespace truth
