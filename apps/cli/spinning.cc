#include "spinning.h"

#include <unistd.h>

#include <climits>
#include <cstdlib>

namespace saif::cli {

// libgomp reads its settings when it is loaded, before main, and has no call to change this one.
void limit_spinning(char** argv) {
  if (std::getenv("GOMP_SPINCOUNT") != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  char program[PATH_MAX];
  const ssize_t size = ::readlink("/proc/self/exe", program, sizeof(program) - 1);
  if (size <= 0 || ::setenv("GOMP_SPINCOUNT", "1000", 1) != 0) return;
  program[size] = '\0';
  ::execv(program, argv);
}

}  // namespace saif::cli
