// Traced frames that an exception, a longjmp or the end of the thread passes. Each method is in a file of its own.
#pragma once

#include <csetjmp>
#include <string>

// What the innermost frame does on every second call.
enum class Leave { Return, Throw, Jump, ExitThread, BlockForCancel };

namespace ml {

class Inner {
public:
    virtual ~Inner() = default;
    virtual int predict(int value, Leave leave);
};

class Middle {
public:
    virtual ~Middle() = default;
    virtual int predict(int value, Leave leave);

    bool catches = false;
    bool rethrows = false;
    Inner inner;
};

class Outer {
public:
    virtual ~Outer() = default;
    virtual int predict(int value, Leave leave);

    Middle middle;
};

// Lets no exception out: catches inside, or ends the process.
class Guarded {
public:
    virtual ~Guarded() = default;
    virtual int predict(int value, Leave leave) noexcept;
    virtual int predict_proba(int value, Leave leave) noexcept;

    Middle middle;
};

// Frames without destructors, for longjmp.
class Plain {
public:
    int predict(int value, Leave leave);
    int predict_proba(int value, Leave leave);
};

} // namespace ml

extern thread_local std::jmp_buf landing;

// Counts the frames whose destructors ran.
struct Cleanup {
    static thread_local int count;
    ~Cleanup();
};
