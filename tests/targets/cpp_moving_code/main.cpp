// Copies its own code to anonymous memory and goes on there, as programs do that want it on huge pages.
//
// --requests N, --move-at-once (before the first batch; otherwise at the beginning of the second). Built with MOVER as the
// name of the function that does it.
#include <sys/mman.h>

#include <cinttypes>

#include "../shared/gate.h"
#include "model.hpp"

__attribute__((noinline)) bool MOVER() {
    const uintptr_t here = reinterpret_cast<uintptr_t>(&MOVER);
    FILE* maps = fopen("/proc/self/maps", "r");
    char line[4096];
    uintptr_t start = 0, end = 0;
    while (fgets(line, sizeof line, maps)) {
        uintptr_t low, high;
        char access[8];
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %7s", &low, &high, access) != 3) continue;
        if (access[2] == 'x' && low <= here && here < high) start = low, end = high;
    }
    fclose(maps);
    if (end == 0) return false;
    const size_t length = end - start;
    void* copy = mmap(nullptr, length, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (copy == MAP_FAILED) return false;
    memcpy(copy, reinterpret_cast<void*>(start), length);
    return mremap(copy, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, reinterpret_cast<void*>(start)) != MAP_FAILED;
}

int main(int argc, char** argv) {
    const long requests = option_number(argc, argv, "--requests", 20);
    bool moved = option_present(argc, argv, "--move-at-once");
    if (moved && !MOVER()) return 2;
    Model model;
    long sum = 0;
    for (int batch = 0; gate_next(argc, argv); batch++) {
        if (batch == 1 && !moved) {
            if (!MOVER()) return 2;
            moved = true;
        }
        for (long request = 0; request < requests; request++) sum = (sum * 3 + model.predict(request)) % 1000003;
        printf("sum %ld\n", sum);
        fflush(stdout);
    }
    return 0;
}
