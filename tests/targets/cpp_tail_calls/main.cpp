// Calls each shape with 0, 1, 2 ...
//
// --requests N, --gate.
#include "../shared/gate.h"
#include "shapes.hpp"

long observe(long value) { return value ^ 5; }

int main(int argc, char** argv) {
    const long requests = option_number(argc, argv, "--requests", 40);
    shapes::Target target;
    shapes::ManyReturns many_returns;
    shapes::RepeatedReturn repeated_return;
    shapes::ReturnWithCount return_with_count;
    shapes::TailJump tail_jump;
    shapes::ConditionalTail conditional_tail;
    shapes::LoopToEntry loop_to_entry;
    shapes::SelfTail self_tail;
    shapes::PaddedEntry padded_entry;
    shapes::OnlyJump only_jump;
    shapes::Next next;
    shapes::VirtualTail virtual_tail;
    virtual_tail.next = &next;
    shapes::SiblingCall sibling_call;
    shapes::JumpTable jump_table;
    shapes::ColdPart cold_part;
    shapes::NeverReturns never_returns;
    shapes::LargeFrame large_frame;
    unsigned long sum = 0;
    while (gate_next(argc, argv)) {
        for (long value = 0; value < requests; value++) {
            long thrown = 0;
            try {
                never_returns.predict(value);
            } catch (long caught) {
                thrown = caught;
            }
            const long results[] = {
                target.predict(value), many_returns.predict(value), repeated_return.predict(value),
                return_with_count.predict(value), tail_jump.predict(value), conditional_tail.predict(value),
                loop_to_entry.predict(value), self_tail.predict(value), padded_entry.predict(value),
                only_jump.predict(value), virtual_tail.predict(value), sibling_call.predict(value),
                jump_table.predict(value), cold_part.predict(value), large_frame.predict(value), thrown,
            };
            for (long result : results) sum = sum * 31 + (unsigned long)result;
            printf("value %ld: %lu\n", value, sum);
        }
    }
    return 0;
}
