// Any bytes: what parse_zip accepts lies in the archive without overlap; members are read and checked, and those that
// are arrays are parsed.
#include <cstdint>
#include <cstdlib>

#include "formats/npz.h"
#include "formats/zip.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto entries = saif::parse_zip(bytes);
  if (!entries.ok()) return 0;
  size_t total = 0;
  for (const auto& entry : entries.value()) {
    if (entry.begin > entry.end || entry.end > size) std::abort();
    total += entry.end - entry.begin;
    const auto npy = saif::parse_npy(bytes.subspan(entry.begin, entry.end - entry.begin));
    if (npy.ok() && npy.value().begin > entry.end - entry.begin) std::abort();
  }
  if (total > size) std::abort();
  return 0;
}
