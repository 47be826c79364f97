// Functions of odd shapes: ways to begin, to return, and to leave by a jump.
#pragma once

namespace shapes {

// Written in shapes.S.
struct Target { long predict(long value); };
struct ManyReturns { long predict(long value); };
struct RepeatedReturn { long predict(long value); };
struct ReturnWithCount { long predict(long value); };
struct TailJump { long predict(long value); };
struct ConditionalTail { long predict(long value); };
struct LoopToEntry { long predict(long value); };
struct SelfTail { long predict(long value); };
struct PaddedEntry { long predict(long value); };
struct OnlyJump { long predict(long value); };

// Written in shapes.cpp.
class Next {
public:
    virtual ~Next() = default;
    virtual long predict(long value);
};

class VirtualTail {
public:
    virtual ~VirtualTail() = default;
    virtual long predict(long value);

    Next* next;
};

class SiblingCall {
public:
    virtual ~SiblingCall() = default;
    virtual long predict(long value);
};

class JumpTable {
public:
    virtual ~JumpTable() = default;
    virtual long predict(long value);
};

class ColdPart {
public:
    virtual ~ColdPart() = default;
    virtual long predict(long value);
};

class NeverReturns {
public:
    virtual ~NeverReturns() = default;
    [[noreturn]] virtual long predict(long value);
};

class LargeFrame {
public:
    virtual ~LargeFrame() = default;
    virtual long predict(long value);
};

} // namespace shapes

long observe(long value);
