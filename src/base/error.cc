#include "saif/error.h"

#include <cstring>

#include "base/check.h"

namespace saif {

const char* name_of(Errc code) {
  switch (code) {
    case Errc::kInvalidArgument:
      return "invalid_argument";
    case Errc::kNotFound:
      return "not_found";
    case Errc::kBadFormat:
      return "bad_format";
    case Errc::kUnsupported:
      return "unsupported";
    case Errc::kMismatch:
      return "mismatch";
    case Errc::kRefused:
      return "refused";
    case Errc::kIo:
      return "io";
    case Errc::kInterrupted:
      return "interrupted";
    case Errc::kInternal:
      return "internal";
  }
  return "internal";
}

namespace internal {

void check_failed(const char* condition, const char* file, int line, const std::string& message) {
  const char* slash = std::strrchr(file, '/');
  throw Error(Errc::kInternal, std::string("internal check failed: ") + condition + " at " +
                                   (slash ? slash + 1 : file) + ":" + std::to_string(line) +
                                   (message.empty() ? "" : ": " + message));
}

}  // namespace internal
}  // namespace saif
