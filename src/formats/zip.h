// The directory of a zip archive, as numpy (.npz) and torch (.pt) write it: members stored without compression are used
// where they lie, nothing is ever extracted to a file.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "saif/error.h"

namespace saif {

struct ZipEntry {
  std::string name;
  size_t begin = 0, end = 0;  // byte range of the data, from the start of the archive
};

// Pure. In the directory's order; zip64 is understood. Every range lies in the archive and no two overlap. Names that
// are absolute or climb ("..") and names given twice are kBadFormat; compressed or encrypted members are kUnsupported.
Result<std::vector<ZipEntry>> parse_zip(std::span<const std::byte> bytes);

}  // namespace saif
