// A model that forks, or executes another program, in the middle of a call.
#pragma once

enum class Step { None, Fork, ForkAndExec, Exec };

namespace ml {

class Forking {
public:
    virtual ~Forking() = default;
    virtual int predict(int value, Step step);
};

class Plain {
public:
    virtual ~Plain() = default;
    virtual int predict(int value);
};

} // namespace ml

int take_step(int value, Step step);
