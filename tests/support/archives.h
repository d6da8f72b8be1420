// Writers of small npz and torch files for tests, byte by byte as numpy and torch lay them out.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace saif::test {

template <typename T>
std::string little(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

// The checksum of zip archives, bit by bit.
inline uint32_t crc32_of(const std::string& data) {
  uint32_t crc = ~uint32_t{0};
  for (const char c : data) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xEDB88320U : 0U);
  }
  return ~crc;
}

// A zip archive of stored members.
inline std::string zip(const std::vector<std::pair<std::string, std::string>>& members) {
  std::string out, directory;
  for (const auto& [name, data] : members) {
    const auto offset = static_cast<uint32_t>(out.size()), size = static_cast<uint32_t>(data.size());
    const std::string common = little<uint16_t>(20) + std::string(4, '\0') + std::string(4, '\0') +
                               little(crc32_of(data)) + little(size) + little(size) +
                               little(static_cast<uint16_t>(name.size())) + little<uint16_t>(0);
    out += std::string("PK\3\4", 4) + common + name + data;
    directory +=
        std::string("PK\1\2", 4) + little<uint16_t>(20) + common + std::string(10, '\0') + little(offset) + name;
  }
  const auto count = static_cast<uint16_t>(members.size());
  return out + directory + std::string("PK\5\6", 4) + std::string(4, '\0') + little(count) + little(count) +
         little(static_cast<uint32_t>(directory.size())) + little(static_cast<uint32_t>(out.size())) +
         little<uint16_t>(0);
}

inline std::string npy(const std::string& type, const std::string& shape, const std::string& data) {
  std::string header = "{'descr': '" + type + "', 'fortran_order': False, 'shape': " + shape + ", }";
  while ((header.size() + 11) % 64 != 0) header += ' ';
  header += '\n';
  return std::string("\x93NUMPY\x01\x00", 8) + little(static_cast<uint16_t>(header.size())) + header + data;
}

struct TorchTensor {
  std::string name, storage, key;  // "w", "FloatStorage", "0"
  int32_t elements = 0, offset = 0;
  std::vector<int32_t> shape, strides;
  std::string metadata = {};  // pickled: the seventh argument of _rebuild_tensor_v2
};

inline std::string pickled(const std::string& s) { return "X" + little(static_cast<uint32_t>(s.size())) + s; }

// data.pkl of a dictionary of tensors. `others`: further keys and values, pickled.
inline std::string torch_pickle(const std::vector<TorchTensor>& tensors, const std::string& others = "") {
  const auto text = pickled;
  const auto integer = [](int32_t v) { return "J" + little(v); };
  const auto tuple = [&](const std::vector<int32_t>& values) {
    std::string out = "(";
    for (const int32_t v : values) out += integer(v);
    return out + "t";
  };
  std::string out("\x80\x02}(", 4);
  for (const TorchTensor& t : tensors) {
    out += text(t.name) + "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + "ctorch\n" + t.storage + "\n" +
           text(t.key) + text("cpu") + integer(t.elements) + "tQ" + integer(t.offset) + tuple(t.shape) +
           tuple(t.strides) + "\x89" + "ccollections\nOrderedDict\n)R" + t.metadata + "tR";
  }
  return out + others + "u.";
}

}  // namespace saif::test
