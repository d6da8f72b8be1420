// What base/parallel.h needs of OpenMP, for one thread.
#pragma once

inline int omp_get_max_threads() { return 1; }
inline void omp_set_num_threads(int) {}
inline int omp_in_parallel() { return 1; }
