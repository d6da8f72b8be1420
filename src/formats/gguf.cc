#include "formats/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "saif/json.h"

namespace saif {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF data is used in place");

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr int kMaxArrayDepth = 4;
constexpr uint32_t kMaxDims = 4;
constexpr size_t kMinEntryBytes = 13;   // key length, type, one byte
constexpr size_t kMinTensorBytes = 24;  // name length, number of dims, type, offset
constexpr int64_t kMaxElements = std::numeric_limits<int64_t>::max() / 16;

// Bytes per scalar; 0 for strings, arrays and numbers that name no type.
size_t scalar_bytes(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
      return 8;
    default:
      return 0;
  }
}

// A name from the file, quoted, escaped and cut for a message.
std::string quoted(std::string_view name) {
  return Json(name.size() > 100 ? std::string(name.substr(0, 97)) + "..." : std::string(name)).dump();
}

}  // namespace

// Reads front to back. Every step returns false once error_ is set; lengths are compared with what is left of the file
// before anything is allocated.
class GgufParser {
 public:
  explicit GgufParser(std::span<const std::byte> bytes) : bytes_(bytes) {}

  Result<GgufView> parse() {
    if (!header() || !metadata() || !alignment() || !tensors() || !place_tensors() || !disjoint()) {
      return Error(code_, error_);
    }
    return std::move(view_);
  }

 private:
  bool fail(std::string why, Errc code = Errc::kBadFormat) {
    error_ = "GGUF: " + std::move(why);
    code_ = code;
    return false;
  }

  size_t left() const { return bytes_.size() - position_; }

  bool truncated(const std::string& what, uint64_t needed) {
    return fail("truncated: " + what + " needs " + std::to_string(needed) + " bytes at offset " +
                std::to_string(position_) + ", the file has " + std::to_string(bytes_.size()) + " bytes");
  }

  template <typename T>
  bool read(T& out, const std::string& what) {
    if (left() < sizeof(T)) return truncated(what, sizeof(T));
    std::memcpy(&out, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return true;
  }

  bool read_string(std::string_view& out, const std::string& what) {
    uint64_t size = 0;
    if (!read(size, what)) return false;
    if (size > left()) return truncated(what, size);
    out = {reinterpret_cast<const char*>(bytes_.data() + position_), static_cast<size_t>(size)};
    position_ += static_cast<size_t>(size);
    return true;
  }

  bool header() {
    uint32_t magic = 0;
    if (!read(magic, "magic") || !read(view_.version_, "version")) return false;
    if (magic != kMagic) return fail("the file does not begin with \"GGUF\"");
    if ((view_.version_ & 0xffffu) == 0 && view_.version_ != 0) {
      return fail("big-endian file; expected little-endian", Errc::kUnsupported);
    }
    if (view_.version_ != 2 && view_.version_ != 3) {
      return fail("version " + std::to_string(view_.version_) + ", expected 2 or 3", Errc::kUnsupported);
    }
    if (!read(tensor_count_, "tensor count") || !read(entry_count_, "metadata count")) return false;
    if (entry_count_ > left() / kMinEntryBytes || tensor_count_ > left() / kMinTensorBytes) {
      return fail("header announces " + std::to_string(tensor_count_) + " tensors and " + std::to_string(entry_count_) +
                  " metadata entries, more than a file of " + std::to_string(bytes_.size()) + " bytes can hold");
    }
    return true;
  }

  bool metadata() {
    for (uint64_t i = 0; i < entry_count_; ++i) {
      std::string_view key;
      if (!read_string(key, "metadata key " + std::to_string(i))) return false;
      GgufValue value;
      if (!read_value(value, "key " + quoted(key))) return false;
      if (!view_.metadata_index_.emplace(key, view_.metadata_.size()).second) {
        return fail("key " + quoted(key) + " appears twice");
      }
      view_.metadata_.emplace_back(key, std::move(value));
    }
    return true;
  }

  bool read_type(GgufType& type, const std::string& what) {
    uint32_t id = 0;
    if (!read(id, what)) return false;
    if (id > static_cast<uint32_t>(GgufType::kF64)) {
      return fail(what + " has value type " + std::to_string(id) + ", expected 0 to 12");
    }
    type = static_cast<GgufType>(id);
    return true;
  }

  template <typename T, typename Wide>
  bool read_scalar(GgufValue& out, const std::string& what) {
    T v{};
    if (!read(v, what)) return false;
    out.value = static_cast<Wide>(v);
    return true;
  }

  bool read_value(GgufValue& out, const std::string& what) {
    if (!read_type(out.type, what)) return false;
    switch (out.type) {
      case GgufType::kU8:
        return read_scalar<uint8_t, int64_t>(out, what);
      case GgufType::kI8:
        return read_scalar<int8_t, int64_t>(out, what);
      case GgufType::kU16:
        return read_scalar<uint16_t, int64_t>(out, what);
      case GgufType::kI16:
        return read_scalar<int16_t, int64_t>(out, what);
      case GgufType::kU32:
        return read_scalar<uint32_t, int64_t>(out, what);
      case GgufType::kI32:
        return read_scalar<int32_t, int64_t>(out, what);
      case GgufType::kI64:
        return read_scalar<int64_t, int64_t>(out, what);
      case GgufType::kF32:
        return read_scalar<float, double>(out, what);
      case GgufType::kF64:
        return read_scalar<double, double>(out, what);
      case GgufType::kU64: {
        uint64_t v = 0;
        if (!read(v, what)) return false;
        if (v <= static_cast<uint64_t>(INT64_MAX)) {
          out.value = static_cast<int64_t>(v);
        } else {
          out.value = v;
        }
        return true;
      }
      case GgufType::kBool: {
        uint8_t v = 0;
        if (!read(v, what)) return false;
        if (v > 1) return fail(what + " is a bool of value " + std::to_string(v) + ", expected 0 or 1");
        out.value = v == 1;
        return true;
      }
      case GgufType::kString: {
        std::string_view v;
        if (!read_string(v, what)) return false;
        out.value = v;
        return true;
      }
      case GgufType::kArray:
        return read_array(out.value.emplace<GgufArray>(), what, 1);
    }
    return false;
  }

  bool read_array(GgufArray& out, const std::string& what, int depth) {
    uint64_t count = 0;
    if (depth > kMaxArrayDepth) return fail(what + " nests arrays deeper than " + std::to_string(kMaxArrayDepth));
    if (!read_type(out.element, what) || !read(count, what)) return false;
    const size_t scalar = scalar_bytes(out.element);
    // A string takes at least its length, an array its type and count.
    const size_t least = scalar ? scalar : out.element == GgufType::kString ? 8 : 12;
    if (count > left() / least) {
      return fail(what + " announces " + std::to_string(count) + " elements, more than the remaining " +
                  std::to_string(left()) + " bytes can hold");
    }
    out.size = static_cast<size_t>(count);
    if (scalar) {
      out.packed = bytes_.subspan(position_, out.size * scalar);
      position_ += out.packed.size();
      return true;
    }
    if (out.element == GgufType::kString) {
      out.strings.resize(out.size);
      return std::all_of(out.strings.begin(), out.strings.end(), [&](auto& s) { return read_string(s, what); });
    }
    for (size_t i = 0; i < out.size; ++i) {
      if (!read_array(out.arrays.emplace_back(), what, depth + 1)) return false;
    }
    return true;
  }

  bool alignment() {
    const GgufValue* value = view_.find("general.alignment");
    if (!value) return true;
    const auto* v = std::get_if<int64_t>(&value->value);
    if (!v || *v < 1 || *v > 1 << 24 || !std::has_single_bit(static_cast<uint64_t>(*v))) {
      return fail("general.alignment must be a power of two up to 2^24");
    }
    view_.alignment_ = static_cast<size_t>(*v);
    return true;
  }

  bool tensors() {
    for (uint64_t i = 0; i < tensor_count_; ++i) {
      std::string_view name;
      if (!read_string(name, "name of tensor " + std::to_string(i))) return false;
      GgufTensor tensor;
      tensor.name = name;
      if (!view_.tensor_index_.emplace(name, view_.tensors_.size()).second) {
        return fail("tensor " + quoted(name) + " appears twice");
      }
      if (!read_tensor(tensor)) return false;
      view_.tensors_.push_back(std::move(tensor));
    }
    return true;
  }

  bool read_tensor(GgufTensor& tensor) {
    const std::string what = "tensor " + quoted(tensor.name);
    uint32_t dims = 0, type = 0;
    uint64_t offset = 0;
    if (!read(dims, what)) return false;
    if (dims > kMaxDims) return fail(what + " has " + std::to_string(dims) + " dimensions, expected at most 4");
    tensor.elements = 1;
    int64_t bound = 1;  // the product without zeros, so that no order of multiplication overflows later
    for (uint32_t d = 0; d < dims; ++d) {
      uint64_t size = 0;
      if (!read(size, what)) return false;
      if (size > static_cast<uint64_t>(kMaxElements) ||
          (size != 0 && bound > kMaxElements / static_cast<int64_t>(size))) {
        return fail(what + ": the product of its dimensions overflows");
      }
      if (size != 0) bound *= static_cast<int64_t>(size);
      tensor.elements *= static_cast<int64_t>(size);
      tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
    }
    if (!read(type, what) || !read(offset, what)) return false;
    const GgmlTypeInfo* info = find_ggml_type(type);
    if (!info) return fail(what + " has the unknown ggml type " + std::to_string(type), Errc::kUnsupported);
    tensor.type = info->type;
    const int64_t row = tensor.shape.empty() ? 1 : tensor.shape.back();
    if (row % info->block != 0) {
      return fail(what + " has rows of " + std::to_string(row) + " elements, expected a multiple of " +
                  std::to_string(info->block) + " for type " + info->name);
    }
    const int64_t blocks = tensor.elements / info->block;
    if (static_cast<uint64_t>(blocks) > bytes_.size() / info->block_bytes || offset > bytes_.size()) {
      return fail(what + " (" + info->name + " " + tensor.shape_text() + " at offset " + std::to_string(offset) +
                  ") does not fit into a file of " + std::to_string(bytes_.size()) + " bytes");
    }
    tensor.bytes = static_cast<size_t>(blocks) * info->block_bytes;
    tensor.offset = static_cast<size_t>(offset);
    return true;
  }

  // From offsets within the data section, which begins at the next multiple of the alignment, to offsets in the file.
  bool place_tensors() {
    const size_t align = view_.alignment_;
    const size_t data = (position_ + align - 1) / align * align;
    for (GgufTensor& tensor : view_.tensors_) {
      const std::string what = "tensor " + quoted(tensor.name);
      if (tensor.offset % align != 0) {
        return fail(what + " is at offset " + std::to_string(tensor.offset) + ", expected a multiple of " +
                    std::to_string(align));
      }
      tensor.offset += data;  // both at most the file's size (plus alignment): no overflow
      if (tensor.bytes > bytes_.size() || tensor.offset > bytes_.size() - tensor.bytes) {
        return fail("truncated: " + what + " needs the file to have " + std::to_string(tensor.offset + tensor.bytes) +
                    " bytes, it has " + std::to_string(bytes_.size()));
      }
      tensor.data = bytes_.data() + tensor.offset;
    }
    return true;
  }

  bool disjoint() {
    std::vector<const GgufTensor*> order;
    for (const GgufTensor& tensor : view_.tensors_) {
      if (tensor.bytes > 0) order.push_back(&tensor);
    }
    std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->offset < b->offset; });
    for (size_t i = 1; i < order.size(); ++i) {
      if (order[i]->offset < order[i - 1]->offset + order[i - 1]->bytes) {
        return fail("tensors " + quoted(order[i - 1]->name) + " and " + quoted(order[i]->name) + " overlap");
      }
    }
    return true;
  }

  std::span<const std::byte> bytes_;
  size_t position_ = 0;
  uint64_t tensor_count_ = 0, entry_count_ = 0;
  GgufView view_;
  std::string error_;
  Errc code_ = Errc::kBadFormat;
};

Result<GgufView> parse_gguf(std::span<const std::byte> bytes) { return GgufParser(bytes).parse(); }

}  // namespace saif
