// The directory of a zip archive, as numpy (.npz) and torch (.pt) write it: members stored without compression are used
// where they lie, deflated ones are unpacked in memory, nothing is ever extracted to a file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "saif/error.h"
#include "saif/tensor.h"

namespace saif {

struct ZipEntry {
  std::string name;
  size_t begin = 0, end = 0;  // byte range of the stored data, from the start of the archive
  uint64_t size = 0;          // of the data; end - begin unless deflated
  uint32_t crc = 0;           // of the data
  bool deflated = false;
};

// Pure. In the directory's order; zip64 is understood. Every range lies in the archive and no two overlap; what is
// deflated grows to no more than 16 times the archive in all. Names that are absolute or climb ("..") and names given
// twice are kBadFormat; encrypted members and other compressions are kUnsupported.
Result<std::vector<ZipEntry>> parse_zip(std::span<const std::byte> bytes);

// An error that names the member when the data are not those that its checksum was taken of.
std::optional<Error> check_crc(const ZipEntry& entry, std::span<const std::byte> data);

// The data of a deflated member, U8 [size]; its checksum is verified.
Result<Tensor> inflate_member(std::span<const std::byte> archive, const ZipEntry& entry);

}  // namespace saif
