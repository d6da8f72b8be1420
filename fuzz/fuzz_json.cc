// Any bytes: parse_json neither crashes nor hangs, and what it accepts is written and read again as the same value.
#include <cstdint>
#include <cstdlib>

#include "saif/json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parsed = saif::parse_json({reinterpret_cast<const char*>(data), size});
  if (!parsed.ok()) return 0;
  const std::string text = parsed.value().dump();
  const auto again = saif::parse_json(text);
  if (!again.ok() || again.value().dump() != text) std::abort();
  return 0;
}
