// SAIF_CHECK at operation boundaries throws Error{kInternal}; SAIF_DCHECK in kernels vanishes in release builds.
#pragma once

#include <string>

#include "saif/error.h"

namespace saif::internal {
[[noreturn]] void check_failed(const char* condition, const char* file, int line, const std::string& message);
}  // namespace saif::internal

#define SAIF_CHECK(condition, message)                                                         \
  do {                                                                                         \
    if (!(condition)) ::saif::internal::check_failed(#condition, __FILE__, __LINE__, message); \
  } while (false)

#ifdef NDEBUG
#define SAIF_DCHECK(condition) \
  do {                         \
  } while (false)
#else
#define SAIF_DCHECK(condition) SAIF_CHECK(condition, "")
#endif
