// A program with a model as code generators write it: `score` as of m2cgen, `predict` as of treelite, and a function whose name only
// begins like theirs.
//
// --requests N (calls of each in a batch), --gate.
#include "../shared/gate.h"

__attribute__((noinline)) double score(const double* input) { return input[0] > 0.5 ? input[1] : -input[1]; }

__attribute__((noinline)) float predict(const float* rows, int margin) { return margin ? rows[0] : rows[0] + rows[1]; }

__attribute__((noinline)) long score_of_game(long points) { return points * 3; }

int main(int argc, char** argv) {
    const long requests = option_number(argc, argv, "--requests", 10);
    double sum = 0;
    while (gate_next(argc, argv)) {
        for (long request = 0; request < requests; request++) {
            const double input[2] = {(double)(request % 2), 1.5};
            const float rows[2] = {(float)request, 0.25f};
            sum += score(input) + (double)predict(rows, (int)(request % 2)) + (double)score_of_game(request);
        }
        printf("sum %.2f\n", sum);
    }
    return 0;
}
