// Each call prints `inside` and stays open until a line arrives on standard input; at the end of input it goes on.
//
// --requests N, --gate.
#include "../shared/gate.h"
#include "model.hpp"

void wait_inside() {
    puts("inside");
    fflush(stdout);
    gate_line();
}

int main(int argc, char** argv) {
    const long requests = option_number(argc, argv, "--requests", 2);
    ml::Server server;
    while (gate_next(argc, argv)) {
        for (long request = 0; request < requests; request++) printf("request %ld: %ld\n", request, server.predict(request));
    }
    return 0;
}
