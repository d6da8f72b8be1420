#include "formats/zip.h"

#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>
#include <set>

#include "base/parallel.h"
#include "saif/json.h"

namespace saif {
namespace {

constexpr size_t kEndSize = 22, kEnd64Size = 56, kLocatorSize = 20, kCentralSize = 46, kLocalSize = 30;
constexpr uint32_t kEndMark = 0x06054b50, kEnd64Mark = 0x06064b50, kLocatorMark = 0x07064b50;
constexpr uint32_t kCentralMark = 0x02014b50, kLocalMark = 0x04034b50;
constexpr size_t kMaxComment = 65535;
constexpr uint16_t kStored = 0, kDeflated = 8;
constexpr uint64_t kMaxGrowth = 16, kFreeGrowth = 1 << 16;  // of what deflated members may unpack to
constexpr size_t kCrcBlock = size_t{1} << 22;

Error bad(const std::string& why) { return {Errc::kBadFormat, "zip: " + why}; }

std::string quoted(const std::string& name) {
  return Json(name.size() > 160 ? name.substr(0, 157) + "..." : name).dump();
}

// Little-endian reads; the caller has checked the range.
template <typename T>
T read(std::span<const std::byte> bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

bool fits(std::span<const std::byte> bytes, uint64_t at, uint64_t size) {
  return at <= bytes.size() && size <= bytes.size() - at;
}

struct Directory {
  uint64_t begin = 0, size = 0, entries = 0;
};

std::optional<size_t> find_end(std::span<const std::byte> bytes) {
  if (bytes.size() < kEndSize) return std::nullopt;
  const size_t last = bytes.size() - kEndSize, first = last > kMaxComment ? last - kMaxComment : 0;
  for (size_t at = last + 1; at-- > first;) {
    if (read<uint32_t>(bytes, at) == kEndMark && read<uint16_t>(bytes, at + 20) == bytes.size() - at - kEndSize)
      return at;
  }
  return std::nullopt;
}

Result<Directory> find_directory(std::span<const std::byte> bytes) {
  const std::optional<size_t> end = find_end(bytes);
  if (!end) return bad("there is no end-of-directory record: this is no zip archive, or it is cut off");
  Directory out{read<uint32_t>(bytes, *end + 16), read<uint32_t>(bytes, *end + 12), read<uint16_t>(bytes, *end + 10)};
  if (*end >= kLocatorSize && read<uint32_t>(bytes, *end - kLocatorSize) == kLocatorMark) {
    const auto at = read<uint64_t>(bytes, *end - kLocatorSize + 8);
    if (!fits(bytes, at, kEnd64Size) || read<uint32_t>(bytes, at) != kEnd64Mark) {
      return bad("the zip64 end-of-directory record is not where its locator says");
    }
    out = {read<uint64_t>(bytes, at + 48), read<uint64_t>(bytes, at + 40), read<uint64_t>(bytes, at + 32)};
  }
  if (!fits(bytes, out.begin, out.size)) return bad("the directory lies outside the archive");
  if (out.entries > out.size / kCentralSize) {
    return bad("the directory names " + std::to_string(out.entries) + " members, more than its size has room for");
  }
  return out;
}

struct Member {
  uint64_t compressed = 0, size = 0, header = 0;
  uint32_t crc = 0;
  bool deflated = false;
};

// Takes what a zip64 extra field says in place of values that are all ones.
std::optional<Error> read_extra(std::span<const std::byte> extra, const std::string& name, Member& member) {
  for (size_t at = 0; at + 4 <= extra.size();) {
    const size_t tag = read<uint16_t>(extra, at), size = read<uint16_t>(extra, at + 2);
    if (size > extra.size() - at - 4) break;
    std::span<const std::byte> field = extra.subspan(at + 4, size);
    for (uint64_t* value : {&member.size, &member.compressed, &member.header}) {
      if (tag != 1 || *value != UINT32_MAX) continue;
      if (field.size() < 8) return bad("member " + quoted(name) + ": its zip64 field is too short");
      *value = read<uint64_t>(field, 0);
      field = field.subspan(8);
    }
    at += 4 + size;
  }
  return std::nullopt;
}

bool climbs(const std::string& name) {
  if (name.empty() || name[0] == '/' || name.find('\\') != std::string::npos || name.find(':') == 1) return true;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('/', begin), name.size());
    if (name.compare(begin, end - begin, "..") == 0 && end - begin == 2) return true;
    begin = end + 1;
  }
  return name.find('\0') != std::string::npos;
}

// Where the data of a member begins: behind its local header, whose name and extra field may differ in length.
Result<ZipEntry> locate(std::span<const std::byte> bytes, const std::string& name, const Member& member) {
  const std::string what = "member " + quoted(name);
  if (!fits(bytes, member.header, kLocalSize) || read<uint32_t>(bytes, member.header) != kLocalMark) {
    return bad(what + " has no local header where the directory says");
  }
  const uint64_t begin = member.header + kLocalSize + read<uint16_t>(bytes, member.header + 26) +
                         read<uint16_t>(bytes, member.header + 28);
  if ((!member.deflated && member.size != member.compressed) || !fits(bytes, begin, member.compressed)) {
    return bad(what + " needs " + std::to_string(member.size) + " bytes from byte " + std::to_string(begin) +
               ", but the archive has " + std::to_string(bytes.size()));
  }
  return ZipEntry{name, begin, begin + member.compressed, member.size, member.crc, member.deflated};
}

std::optional<Error> check_overlap(std::vector<ZipEntry> entries) {
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < entries.size(); ++i) {
    if (entries[i].begin >= entries[i - 1].end) continue;
    return bad("members " + quoted(entries[i - 1].name) + " and " + quoted(entries[i].name) + " overlap");
  }
  return std::nullopt;
}

std::optional<Error> check_growth(const std::vector<ZipEntry>& entries, size_t archive) {
  const uint64_t limit = kMaxGrowth * archive + kFreeGrowth;
  uint64_t total = 0;
  for (const ZipEntry& entry : entries) {
    if (!entry.deflated) continue;
    if (entry.size > limit - total) {
      return bad("member " + quoted(entry.name) + " unpacks to " + std::to_string(entry.size) +
                 " bytes, which is too much for an archive of " + std::to_string(archive));
    }
    total += entry.size;
  }
  return std::nullopt;
}

}  // namespace

Result<std::vector<ZipEntry>> parse_zip(std::span<const std::byte> bytes) {
  const Result<Directory> directory = find_directory(bytes);
  if (!directory) return directory.error();
  std::span<const std::byte> rest = bytes.subspan(directory.value().begin, directory.value().size);
  std::vector<ZipEntry> out;
  std::set<std::string> names;
  for (uint64_t i = 0; i < directory.value().entries; ++i) {
    if (rest.size() < kCentralSize || read<uint32_t>(rest, 0) != kCentralMark) {
      return bad("the directory ends after " + std::to_string(i) + " of " + std::to_string(directory.value().entries) +
                 " members");
    }
    const size_t name_size = read<uint16_t>(rest, 28), extra_size = read<uint16_t>(rest, 30);
    const size_t whole = kCentralSize + name_size + extra_size + read<uint16_t>(rest, 32);
    if (whole > rest.size()) return bad("the directory is cut off in member " + std::to_string(i));
    const std::string name(reinterpret_cast<const char*>(rest.data()) + kCentralSize, name_size);
    if (climbs(name)) return bad("the name " + quoted(name) + " is absolute or climbs out of the archive");
    if (!names.insert(name).second) return bad("the name " + quoted(name) + " is given twice");
    const auto flags = read<uint16_t>(rest, 8), method = read<uint16_t>(rest, 10);
    if ((flags & 1) != 0 || (method != kStored && method != kDeflated)) {
      return Error(Errc::kUnsupported, "zip: member " + quoted(name) + " is encrypted or compressed by method " +
                                           std::to_string(method) + "; expected stored or deflated members");
    }
    Member member{read<uint32_t>(rest, 20), read<uint32_t>(rest, 24), read<uint32_t>(rest, 42),
                  read<uint32_t>(rest, 16), method == kDeflated};
    if (const auto error = read_extra(rest.subspan(kCentralSize + name_size, extra_size), name, member)) return *error;
    Result<ZipEntry> entry = locate(bytes, name, member);
    if (!entry) return entry.error();
    out.push_back(std::move(entry).value());
    rest = rest.subspan(whole);
  }
  if (const auto error = check_overlap(out)) return *error;
  if (const auto error = check_growth(out, bytes.size())) return *error;
  return out;
}

std::optional<Error> check_crc(const ZipEntry& entry, std::span<const std::byte> data) {
  const size_t blocks = (data.size() + kCrcBlock - 1) / kCrcBlock;
  std::vector<uLong> sums(blocks);
  const auto block = [&](size_t i) {
    return data.subspan(i * kCrcBlock, std::min(kCrcBlock, data.size() - i * kCrcBlock));
  };
  parallel_for(static_cast<int64_t>(blocks), 1, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      sums[i] = crc32(0, reinterpret_cast<const Bytef*>(block(i).data()), static_cast<uInt>(block(i).size()));
    }
  });
  uLong crc = 0;
  for (size_t i = 0; i < blocks; ++i) crc = crc32_combine(crc, sums[i], static_cast<z_off_t>(block(i).size()));
  if (crc == entry.crc) return std::nullopt;
  char text[64];
  std::snprintf(text, sizeof text, "%08lx, expected %08lx", crc, static_cast<uLong>(entry.crc));
  return bad("member " + quoted(entry.name) + " has the checksum " + text +
             ": the file is damaged; download or save it again");
}

Result<Tensor> inflate_member(std::span<const std::byte> archive, const ZipEntry& entry) {
  Tensor out(DType::kU8, {static_cast<int64_t>(entry.size)});
  z_stream stream = {};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) return bad("member " + quoted(entry.name) + " cannot be unpacked");
  constexpr uint64_t kPiece = uint64_t{1} << 30;  // zlib counts in 32 bits
  uint64_t read = entry.begin, written = 0;
  int status = Z_OK;
  while (status == Z_OK) {
    if (stream.avail_in == 0) {
      const uint64_t piece = std::min<uint64_t>(kPiece, entry.end - read);
      stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(archive.data() + read));
      stream.avail_in = static_cast<uInt>(piece);
      read += piece;
    }
    const uint64_t room = std::min<uint64_t>(kPiece, entry.size - written);
    stream.next_out = static_cast<Bytef*>(out.data()) + written;
    stream.avail_out = static_cast<uInt>(room);
    status = inflate(&stream, Z_NO_FLUSH);  // Z_BUF_ERROR where neither input nor room is left
    written += room - stream.avail_out;
  }
  inflateEnd(&stream);
  if (status != Z_STREAM_END || written != entry.size) {
    return bad("member " + quoted(entry.name) + " does not unpack to the " + std::to_string(entry.size) +
               " bytes that the directory says: the file is damaged");
  }
  const std::span<const std::byte> data(static_cast<const std::byte*>(out.data()), entry.size);
  if (auto error = check_crc(entry, data)) return *std::move(error);
  return out;
}

}  // namespace saif
