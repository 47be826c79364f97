// Replaces the file of a library that it has unloaded, loads it again, and calls it: a server whose model is compiled anew.
//
// --first FILE, --second FILE (what is copied by turns), --library FILE (where to), --way in-place|anew|renamed,
// --requests N (calls a load), --step (waits for a line after each load). Each batch is one load.
#include <dlfcn.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <string>

#include "../shared/gate.h"

static double now() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static bool copy(const char* from, const char* to) {
    int source = open(from, O_RDONLY);
    int target = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0755);
    if (source < 0 || target < 0) return false;
    char bytes[4096];
    long count;
    while ((count = read(source, bytes, sizeof bytes)) > 0)
        if (write(target, bytes, count) != count) return false;
    close(source);
    close(target);
    return count == 0;
}

int main(int argc, char** argv) {
    const char* sources[] = {option_text(argc, argv, "--first", ""), option_text(argc, argv, "--second", "")};
    const char* library = option_text(argc, argv, "--library", "");
    const std::string way = option_text(argc, argv, "--way", "in-place");
    const long requests = option_number(argc, argv, "--requests", 20);
    const bool step = option_present(argc, argv, "--step");
    long generation = 0;
    long sum = 0;
    double longest = 0;
    while (gate_next(argc, argv)) {
        const std::string fresh = std::string(library) + ".fresh";
        const double began = now();
        if (way == "anew") unlink(library);
        const char* target = way == "renamed" ? fresh.c_str() : library;
        if (!copy(sources[generation++ % 2], target)) return 2;
        if (way == "renamed" && rename(target, library) != 0) return 2;
        const double took = now() - began;
        if (took > longest) longest = took;
        void* handle = dlopen(library, RTLD_NOW);
        if (!handle) {
            fprintf(stderr, "%s\n", dlerror());
            return 3;
        }
        if (step) {
            puts("loaded");
            fflush(stdout);
            if (!gate_line()) return 0;
        }
        auto run = reinterpret_cast<long (*)(long)>(dlsym(handle, "generation_run"));
        for (long call = 0; call < requests; call++) sum = (sum * 3 + run(call)) % 1000003;
        dlclose(handle);
        printf("sum %ld\n", sum);
    }
    fprintf(stderr, "longest writing %.3f s\n", longest);
    return 0;
}
