// Truth mode: the methods write down themselves who calls whom, one tree for each outermost call of a thread.
#pragma once

#include <string>

namespace truth {

void enter(const char* name);
void leave();

// The tree of the calls since the last time, e.g. `Pipeline.predict(StandardScaler.transform)`.
std::string take();

} // namespace truth
