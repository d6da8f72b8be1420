#include "formats/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "saif/json.h"

namespace saif {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is used in place");

constexpr size_t kPrefix = 8;  // the header's length
constexpr uint64_t kMaxHeader = 100'000'000;
constexpr int64_t kMaxElements = std::numeric_limits<int64_t>::max() / 16;
constexpr std::string_view kMetadataKey = "__metadata__";

Error bad(const std::string& why) { return {Errc::kBadFormat, "safetensors: " + why}; }

// A name or value from the file, quoted, escaped and cut for a message.
std::string quoted(const Json& value) {
  std::string text = value.dump();
  if (text.size() > 160) text = text.substr(0, 157) + "...";
  return text;
}

std::optional<Error> read_metadata(const Json& json, SafetensorsMetadata& out) {
  if (json.is_null()) return std::nullopt;
  if (!json.is_object()) return bad("__metadata__ is " + quoted(json) + ", expected an object of strings");
  for (const auto& [key, value] : json.members()) {
    if (!value.is_string()) return bad("__metadata__ " + quoted(key) + " is " + quoted(value) + ", expected a string");
    out.emplace(key, value.as_string());
  }
  return std::nullopt;
}

// The elements of a shape, or nullopt when it is no list of sizes or its product, zeros left out, overflows.
std::optional<int64_t> read_shape(const Json& json, std::vector<int64_t>& out) {
  if (!json.is_array()) return std::nullopt;
  int64_t bound = 1;
  bool none = false;
  for (const Json& size : json.items()) {
    if (!size.is_int() || size.as_int() < 0) return std::nullopt;
    const int64_t n = size.as_int();
    if (n != 0 && bound > kMaxElements / n) return std::nullopt;
    if (n != 0) bound *= n;
    none = none || n == 0;
    out.push_back(n);
  }
  return none ? 0 : bound;
}

// One member of the header. `data` is where the data section begins, `file` the size of the file.
std::optional<Error> read_entry(const std::string& name, const Json& json, size_t data, size_t file,
                                SafetensorsView::Entry& entry) {
  const std::string what = "tensor " + quoted(name);
  if (!json.is_object()) return bad(what + " is " + quoted(json) + ", expected an object");
  for (const auto& [key, value] : json.members()) {
    if (key != "dtype" && key != "shape" && key != "data_offsets") {
      return bad(what + " has the unknown key " + quoted(key) + ", expected dtype, shape and data_offsets");
    }
  }
  const Json *dtype = json.find("dtype"), *shape = json.find("shape"), *range = json.find("data_offsets");
  if (!dtype || !shape || !range) return bad(what + " lacks one of dtype, shape and data_offsets");
  entry.name = name;
  if (!dtype->is_string()) return bad(what + ": dtype is " + quoted(*dtype) + ", expected a string");
  const std::optional<DType> known = parse_dtype(dtype->as_string());
  if (!known) {
    return Error(Errc::kUnsupported, "safetensors: " + what + " has dtype " + quoted(*dtype) +
                                         ", expected F64, F32, F16, BF16, I64, I32, I16, I8, U8 or BOOL");
  }
  entry.dtype = *known;
  const std::optional<int64_t> elements = read_shape(*shape, entry.shape);
  if (!elements) return bad(what + ": shape " + quoted(*shape) + " is no list of sizes, or its product overflows");
  if (!range->is_array() || range->size() != 2 || !(*range)[0].is_int() || !(*range)[1].is_int() ||
      (*range)[0].as_int() < 0 || (*range)[1].as_int() < (*range)[0].as_int()) {
    return bad(what + ": data_offsets " + quoted(*range) + ", expected [begin, end] with begin <= end");
  }
  const auto begin = static_cast<uint64_t>((*range)[0].as_int()), end = static_cast<uint64_t>((*range)[1].as_int());
  const uint64_t expected = static_cast<uint64_t>(*elements) * size_of(entry.dtype);
  if (end - begin != expected) {
    return bad(what + ": data_offsets " + quoted(*range) + " span " + std::to_string(end - begin) +
               " bytes, expected " + std::to_string(expected) + " for " + name_of(entry.dtype) + " " + quoted(*shape));
  }
  if (end > file - data) {
    return bad("truncated: " + what + " needs the file to have " + std::to_string(end + data) + " bytes, it has " +
               std::to_string(file));
  }
  entry.begin = data + static_cast<size_t>(begin);
  entry.end = data + static_cast<size_t>(end);
  return std::nullopt;
}

// Sorted entries must cover the data section exactly.
std::optional<Error> check_tiling(const std::vector<SafetensorsView::Entry>& sorted, size_t data, size_t file) {
  size_t at = data;
  const SafetensorsView::Entry* before = nullptr;
  for (const auto& entry : sorted) {
    if (entry.begin < at) {
      return bad("tensors " + quoted(before->name) + " and " + quoted(entry.name) + " overlap: bytes " +
                 std::to_string(entry.begin - data) + " to " + std::to_string(std::min(at, entry.end) - data) +
                 " belong to both");
    }
    if (entry.begin > at) {
      return bad("a hole of " + std::to_string(entry.begin - at) + " bytes lies before tensor " + quoted(entry.name) +
                 ", expected no unused bytes");
    }
    at = entry.end;
    before = &entry;
  }
  if (at != file) {
    return bad(std::to_string(file - at) + " unused bytes follow the last tensor, expected a file of " +
               std::to_string(at) + " bytes, found " + std::to_string(file));
  }
  return std::nullopt;
}

bool by_position(const SafetensorsView::Entry& a, const SafetensorsView::Entry& b) {
  return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
}

}  // namespace

Result<SafetensorsView> parse_safetensors(std::span<const std::byte> bytes) {
  if (bytes.size() < kPrefix) {
    return bad("truncated: the file has " + std::to_string(bytes.size()) + " bytes, the header's length needs 8");
  }
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), kPrefix);
  if (length > bytes.size() - kPrefix) {
    return bad("the header is announced with " + std::to_string(length) + " bytes, the file has " +
               std::to_string(bytes.size()) + " bytes in all");
  }
  if (length > kMaxHeader) {
    return bad("the header has " + std::to_string(length) + " bytes, expected at most " + std::to_string(kMaxHeader));
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + kPrefix, static_cast<size_t>(length));
  if (text.empty() || text.front() != '{') return bad("the header does not begin with {");
  Result<Json> header = parse_json(text);
  if (!header) return bad(std::string("header: ") + header.error().what());
  if (!header.value().is_object()) return bad("the header is no JSON object");

  SafetensorsView view;
  const size_t data = kPrefix + static_cast<size_t>(length);
  for (const auto& [name, json] : header.value().members()) {
    if (name == kMetadataKey) {
      if (auto error = read_metadata(json, view.metadata)) return *std::move(error);
      continue;
    }
    SafetensorsView::Entry& entry = view.tensors.emplace_back();
    if (auto error = read_entry(name, json, data, bytes.size(), entry)) return *std::move(error);
  }
  std::sort(view.tensors.begin(), view.tensors.end(), by_position);
  if (auto error = check_tiling(view.tensors, data, bytes.size())) return *std::move(error);
  return view;
}

struct SafetensorsFile::State {
  std::shared_ptr<const MappedFile> file;
  SafetensorsMetadata metadata;
  std::vector<std::string> names;
  std::unordered_map<std::string_view, size_t> index;  // keys point into names
  // Tensors whose bytes are not aligned to their element get an aligned copy when they are first asked for.
  mutable std::mutex mutex;
  mutable std::vector<TensorView> views;  // data == nullptr: misaligned, not copied yet
  mutable std::vector<Tensor> copies;
  std::vector<size_t> begins;

  void align(size_t i) const {
    const std::scoped_lock lock(mutex);
    TensorView& view = views[i];
    if (view.data) return;
    Tensor copy(view.dtype, view.shape);
    std::memcpy(copy.data(), file->bytes().data() + begins[i], copy.bytes());
    view.data = copy.data();
    copies.push_back(std::move(copy));
  }
};

SafetensorsFile SafetensorsFile::open(const std::string& path) {
  auto state = std::make_shared<State>();
  state->file = MappedFile::open(path);
  const std::span<const std::byte> bytes = state->file->bytes();
  Result<SafetensorsView> parsed = parse_safetensors(bytes);
  if (!parsed) throw Error(parsed.error().code(), path + ": " + parsed.error().what());
  SafetensorsView& view = parsed.value();
  state->metadata = std::move(view.metadata);
  for (auto& entry : view.tensors) {
    const std::byte* data = bytes.data() + entry.begin;
    const bool aligned = reinterpret_cast<uintptr_t>(data) % size_of(entry.dtype) == 0;
    state->views.push_back({entry.dtype, std::move(entry.shape), aligned ? data : nullptr});
    state->names.push_back(std::move(entry.name));
    state->begins.push_back(aligned ? SIZE_MAX : entry.begin);
  }
  for (size_t i = 0; i < state->names.size(); ++i) state->index.emplace(state->names[i], i);
  SafetensorsFile out;
  out.state_ = std::move(state);
  return out;
}

const std::string& SafetensorsFile::path() const { return state_->file->path(); }
void SafetensorsFile::forget_pages() const { state_->file->forget_pages(); }
void SafetensorsFile::expect_all() const { state_->file->expect_all(); }
const std::vector<std::string>& SafetensorsFile::names() const { return state_->names; }
const SafetensorsMetadata& SafetensorsFile::metadata() const { return state_->metadata; }

const TensorView* SafetensorsFile::find(std::string_view name) const {
  const auto found = state_->index.find(name);
  if (found == state_->index.end()) return nullptr;
  const size_t i = found->second;
  if (state_->begins[i] != SIZE_MAX) state_->align(i);
  return &state_->views[i];
}

const TensorView& SafetensorsFile::at(std::string_view name) const {
  if (const TensorView* found = find(name)) return *found;
  throw Error(Errc::kNotFound,
              path() + ": no tensor " + quoted(name) + " among its " + std::to_string(names().size()) + " tensors");
}

}  // namespace saif
