// Loads a shared object, calls it and unloads it, again and again.
//
// --plugin FILE, --rounds N (loads in a batch), --requests N (calls a load), --keep (the last load stays), --gate.
#include <dlfcn.h>

#include "../shared/gate.h"

int main(int argc, char** argv) {
    const char* file = option_text(argc, argv, "--plugin", nullptr);
    const long rounds = option_number(argc, argv, "--rounds", 5);
    const long requests = option_number(argc, argv, "--requests", 20);
    const bool keep = option_present(argc, argv, "--keep");
    long sum = 0;
    long request = 0;
    while (gate_next(argc, argv)) {
        for (long round = 0; round < rounds; round++) {
            void* handle = dlopen(file, RTLD_NOW);
            if (!handle) {
                fprintf(stderr, "%s\n", dlerror());
                return 1;
            }
            auto run = reinterpret_cast<long (*)(long)>(dlsym(handle, "plugin_run"));
            for (long call = 0; call < requests; call++) sum = (sum * 3 + run(request++)) % 1000003;
            if (!keep) dlclose(handle);
        }
        printf("sum %ld\n", sum);
    }
    return 0;
}
