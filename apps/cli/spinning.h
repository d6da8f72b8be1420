// How long a thread that waits for the others keeps its core.
#pragma once

namespace saif::cli {

// Starts the program again with GOMP_SPINCOUNT=1000, unless the user has chosen a GOMP_SPINCOUNT or an OMP_WAIT_POLICY;
// docs/kernels.md says why. Returns where that is so, or where the system does not let it.
void limit_spinning(char** argv);

}  // namespace saif::cli
