// The frame that throws, jumps or ends its thread.
#include <pthread.h>
#include <unistd.h>

#include <stdexcept>

#include "frames.hpp"

thread_local std::jmp_buf landing;
thread_local int Cleanup::count = 0;

Cleanup::~Cleanup() { count++; }

namespace ml {

int Inner::predict(int value, Leave leave) {
    Cleanup cleanup;
    if (value % 2 == 1) {
        switch (leave) {
        case Leave::Throw: throw std::runtime_error("row " + std::to_string(value) + " has no label");
        case Leave::ExitThread: pthread_exit(nullptr);
        case Leave::BlockForCancel:
            for (;;) pause();
        default: break;
        }
    }
    return value * 3;
}

int Plain::predict_proba(int value, Leave leave) {
    if (leave == Leave::Jump && value % 2 == 1) std::longjmp(landing, value);
    return value * 5;
}

} // namespace ml
