// SHA-256 of bytes (FIPS 180-4), for manifests: which model, SAE, data and options made a result.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace saif {
std::string sha256_hex(std::span<const std::byte> bytes);
std::string sha256_hex(std::string_view text);
// Of a file; remembered in the cache directory under its path, size and time of change, so that a large file is read
// once. Throws kIo naming the file.
std::string file_sha256(const std::string& path);
}  // namespace saif
