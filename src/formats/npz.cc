#include "formats/npz.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>

#include "base/file.h"
#include "formats/strided.h"
#include "formats/zip.h"
#include "saif/json.h"

namespace saif {
namespace {

constexpr std::string_view kMagic("\x93NUMPY", 6);

Error bad(const std::string& why) { return {Errc::kBadFormat, "npy: " + why}; }

std::string quoted(std::string_view text) { return Json(std::string(text.substr(0, 160))).dump(); }

// The header is a Python dictionary of three keys; this reads that and nothing more.
class HeaderReader {
 public:
  explicit HeaderReader(std::string_view text) : text_(text) {}

  std::optional<Error> read(NpyView& out) {
    bool descr = false, order = false, shape = false;
    if (!take("{")) return error();
    while (!take("}")) {
      const std::optional<std::string_view> key = string();
      if (!key || !take(":")) return error();
      if (*key == "descr" && !descr) {
        descr = true;
        if (auto failed = read_type(out.dtype)) return failed;
      } else if (*key == "fortran_order" && !order) {
        order = true;
        out.column_major = take("True");
        if (!out.column_major && !take("False")) return error();
      } else if (*key == "shape" && !shape) {
        shape = true;
        if (!read_shape(out.shape)) return error();
      } else {
        return bad("the header has the key " + quoted(*key) + "; expected descr, fortran_order and shape, once each");
      }
      if (!take(",") && !peek('}')) return error();
    }
    if (descr && order && shape) return std::nullopt;
    return bad("the header lacks one of descr, fortran_order and shape");
  }

 private:
  Error error() const { return bad("the header is not as numpy writes it near " + quoted(text_.substr(0, 40))); }

  void skip() {
    while (!text_.empty() && (text_[0] == ' ' || text_[0] == '\n')) text_.remove_prefix(1);
  }

  bool peek(char c) {
    skip();
    return !text_.empty() && text_[0] == c;
  }

  bool take(std::string_view token) {
    skip();
    if (text_.substr(0, token.size()) != token) return false;
    text_.remove_prefix(token.size());
    return true;
  }

  std::optional<std::string_view> string() {
    skip();
    if (text_.empty() || (text_[0] != '\'' && text_[0] != '"')) return std::nullopt;
    const size_t end = text_.find(text_[0], 1);
    if (end == std::string_view::npos) return std::nullopt;
    const std::string_view out = text_.substr(1, end - 1);
    text_.remove_prefix(end + 1);
    return out;
  }

  std::optional<Error> read_type(DType& dtype) {
    const std::optional<std::string_view> name = string();
    if (!name) return Error(Errc::kUnsupported, "npy: its type is a record; expected plain numbers");
    const std::pair<std::string_view, DType> kTypes[] = {
        {"<f4", DType::kF32}, {"<f2", DType::kF16}, {"<f8", DType::kF64}, {"<i8", DType::kI64}, {"<i4", DType::kI32},
        {"<i2", DType::kI16}, {"|i1", DType::kI8},  {"|u1", DType::kU8},  {"|b1", DType::kBool}};
    for (const auto& [known, type] : kTypes) {
      if (*name != known) continue;
      dtype = type;
      return std::nullopt;
    }
    const std::string why =
        name->find('O') != std::string_view::npos ? ", an object array (a pickle), which is not read" : "";
    return Error(Errc::kUnsupported, "npy: its type is " + quoted(*name) + why + "; expected little-endian numbers");
  }

  bool read_shape(std::vector<int64_t>& shape) {
    if (!take("(")) return false;
    while (!take(")")) {
      skip();
      int64_t size = 0;
      const auto [end, failed] = std::from_chars(text_.data(), text_.data() + text_.size(), size);
      if (failed != std::errc() || size < 0) return false;
      text_.remove_prefix(static_cast<size_t>(end - text_.data()));
      shape.push_back(size);
      if (!take(",") && !peek(')')) return false;
    }
    return true;
  }

  std::string_view text_;
};

}  // namespace

Result<NpyView> parse_npy(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.size() < 10 || text.substr(0, kMagic.size()) != kMagic) return bad("it does not begin as numpy arrays do");
  const auto version = static_cast<unsigned char>(text[6]);
  const size_t prefix = version == 1 ? 10 : 12;
  if (version < 1 || version > 3 || text.size() < prefix)
    return bad("version " + std::to_string(version) + "; expected 1 to 3");
  uint32_t length = 0;
  std::memcpy(&length, text.data() + 8, version == 1 ? 2 : 4);
  if (length > text.size() - prefix) {
    return bad("the header needs " + std::to_string(length) + " bytes; there are " +
               std::to_string(text.size() - prefix));
  }
  NpyView out;
  if (const auto error = HeaderReader(text.substr(prefix, length)).read(out)) return *error;
  out.begin = prefix + length;
  const std::optional<int64_t> elements = elements_of(out.shape);
  const size_t room = text.size() - out.begin;
  if (!elements || static_cast<size_t>(*elements) > room / size_of(out.dtype)) {
    return bad("the shape needs more than the " + std::to_string(room) + " bytes of data that there are");
  }
  return out;
}

TensorArchive open_npz(const std::string& path, bool verify) {
  struct Owner {
    std::shared_ptr<const MappedFile> file;
    std::vector<Tensor> copies;
  };
  const auto owner = std::make_shared<Owner>();
  owner->file = MappedFile::open(path);
  const std::span<const std::byte> bytes = owner->file->bytes();
  const Result<std::vector<ZipEntry>> entries = parse_zip(bytes);
  if (!entries) throw Error(entries.error().code(), path + ": " + entries.error().what());
  TensorArchive out;
  for (const ZipEntry& entry : entries.value()) {
    std::span<const std::byte> member = bytes.subspan(entry.begin, entry.end - entry.begin);
    if (entry.deflated) {
      Result<Tensor> unpacked = inflate_member(bytes, entry);
      if (!unpacked) throw Error(unpacked.error().code(), path + ": " + unpacked.error().what());
      owner->copies.push_back(std::move(unpacked).value());
      member = {static_cast<const std::byte*>(owner->copies.back().data()), owner->copies.back().bytes()};
    } else if (const auto error = verify ? check_crc(entry, member) : std::nullopt) {
      throw Error(error->code(), path + ": " + error->what());
    }
    const Result<NpyView> npy = parse_npy(member);
    if (!npy) throw Error(npy.error().code(), path + ": array \"" + entry.name + "\": " + npy.error().what());
    const NpyView& view = npy.value();
    const std::byte* data = member.data() + view.begin;
    TensorView tensor{view.dtype, view.shape, data};
    if (view.column_major || reinterpret_cast<uintptr_t>(data) % size_of(view.dtype) != 0) {
      std::vector<int64_t> strides = row_major_strides(view.shape);
      if (view.column_major) {
        int64_t stride = 1;
        for (size_t i = 0; i < strides.size(); stride *= view.shape[i++]) strides[i] = stride;
      }
      owner->copies.push_back(copy_strided(view.dtype, data, view.shape, strides));
      tensor.data = owner->copies.back().data();
    }
    const std::string name = entry.name.ends_with(".npy") ? entry.name.substr(0, entry.name.size() - 4) : entry.name;
    out.tensors.emplace_back(name, std::move(tensor));
  }
  out.owner = owner;
  return out;
}

}  // namespace saif
