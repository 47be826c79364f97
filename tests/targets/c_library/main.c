// A C program that uses the library; every fifth request has a column too few and fails.
//
// --requests N, --gate.
#include "../shared/gate.h"
#include "model.h"

int main(int argc, char **argv) {
    const long requests = option_number(argc, argv, "--requests", 50);
    double values[64];
    double out[16];
    for (int index = 0; index < 64; index++) values[index] = index * 0.5;
    model_handle handle;
    if (model_create(4, &handle) != 0) return 1;
    double sum = 0;
    long failures = 0;
    while (gate_next(argc, argv)) {
        for (long request = 0; request < requests; request++) {
            const int rows = 1 + (int)(request % 16);
            if (model_predict(handle, values, rows, request % 5 == 4 ? 3 : 4, out) != 0) {
                failures++;
                continue;
            }
            for (int row = 0; row < rows; row++) sum += out[row];
        }
        printf("sum %.6f, %ld failures\n", sum, failures);
    }
    model_free(handle);
    return 0;
}
