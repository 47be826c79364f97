// Predicts until it is told to end: a target that needs nothing but itself, for machines that have nothing else.

#include <csignal>
#include <cstdio>
#include <unistd.h>

namespace {
volatile sig_atomic_t ended = 0;
void end(int) { ended = 1; }
}  // namespace

class Scaler {
 public:
  __attribute__((noinline)) double transform(double value);
};

class Model {
 public:
  __attribute__((noinline)) int predict(double value);

 private:
  Scaler scaler_;
};

double Scaler::transform(double value) { return value * 0.5 - 1.0; }

int Model::predict(double value) { return scaler_.transform(value) > 0.0 ? 1 : 0; }

int main() {
  signal(SIGTERM, end);
  std::puts("ready");
  std::fflush(stdout);
  Model model;
  long positive = 0, calls = 0;
  while (!ended) {
    positive += model.predict(static_cast<double>(calls % 5));
    calls += 1;
    usleep(5000);
  }
  std::printf("calls=%ld positive=%ld\n", calls, positive);
  return calls > 0 ? 0 : 1;
}
