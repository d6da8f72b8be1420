// Typed lookups in GGUF metadata, and the files that hold them.
#include <bit>
#include <cstring>

#include "base/check.h"
#include "formats/gguf.h"

namespace saif {
namespace {

constexpr const char* kNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                  "bool", "string", "array", "u64", "i64", "f64"};

template <typename T>
T load(const GgufArray& array, size_t i) {
  SAIF_CHECK((i + 1) * sizeof(T) <= array.packed.size(), "GGUF array index beyond its end");
  T v;
  std::memcpy(&v, array.packed.data() + i * sizeof(T), sizeof v);
  return v;
}

[[noreturn]] void wrong_element(const GgufArray& array, const char* expected) {
  throw Error(Errc::kBadFormat,
              std::string("GGUF: found an array of ") + name_of(array.element) + ", expected an array of " + expected);
}

std::string describe_type(const GgufValue& value) {
  if (const auto* array = std::get_if<GgufArray>(&value.value))
    return std::string("array of ") + name_of(array->element);
  return name_of(value.type);
}

[[noreturn]] void wrong_type(const GgufView& view, std::string_view key, const GgufValue& value, const char* expected) {
  throw Error(Errc::kBadFormat, view.source() + ": key " + std::string(key) + " is of type " + describe_type(value) +
                                    ", expected " + expected);
}

[[noreturn]] void absent(const GgufView& view, std::string_view key, const char* expected) {
  throw Error(Errc::kNotFound, view.source() + ": no key " + std::string(key) + ", expected one of type " + expected);
}

bool is_integer(GgufType type) { return type <= GgufType::kI32 || type == GgufType::kU64 || type == GgufType::kI64; }

bool is_number(GgufType type) { return is_integer(type) || type == GgufType::kF32 || type == GgufType::kF64; }

template <typename T>
T require(std::optional<T> found, const GgufView& view, std::string_view key, const char* expected) {
  if (!found) absent(view, key, expected);
  return *std::move(found);
}

}  // namespace

const char* name_of(GgufType type) {
  const auto i = static_cast<size_t>(type);
  return i < std::size(kNames) ? kNames[i] : "unknown";
}

int64_t GgufArray::int_at(size_t i) const {
  switch (element) {
    case GgufType::kU8:
      return load<uint8_t>(*this, i);
    case GgufType::kI8:
      return load<int8_t>(*this, i);
    case GgufType::kU16:
      return load<uint16_t>(*this, i);
    case GgufType::kI16:
      return load<int16_t>(*this, i);
    case GgufType::kU32:
      return load<uint32_t>(*this, i);
    case GgufType::kI32:
      return load<int32_t>(*this, i);
    case GgufType::kI64:
      return load<int64_t>(*this, i);
    case GgufType::kU64: {
      const auto v = load<uint64_t>(*this, i);
      if (v <= static_cast<uint64_t>(INT64_MAX)) return static_cast<int64_t>(v);
      throw Error(Errc::kBadFormat, "GGUF: array element " + std::to_string(v) + " is beyond 64-bit signed integers");
    }
    default:
      wrong_element(*this, "integers");
  }
}

double GgufArray::number_at(size_t i) const {
  if (element == GgufType::kF32) return load<float>(*this, i);
  if (element == GgufType::kF64) return load<double>(*this, i);
  if (!is_integer(element)) wrong_element(*this, "numbers");
  return static_cast<double>(int_at(i));
}

bool GgufArray::bool_at(size_t i) const {
  if (element != GgufType::kBool) wrong_element(*this, "booleans");
  return load<uint8_t>(*this, i) != 0;
}

std::string GgufTensor::shape_text() const { return TensorView{DType::kF32, shape, nullptr}.shape_text(); }

const GgufTensor* GgufView::find_tensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

const GgufValue* GgufView::find(std::string_view key) const {
  const auto found = metadata_index_.find(key);
  return found == metadata_index_.end() ? nullptr : &metadata_[found->second].second;
}

std::optional<int64_t> GgufView::find_int(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (const auto* v = std::get_if<int64_t>(&value->value)) return *v;
  wrong_type(*this, key, *value,
             std::holds_alternative<uint64_t>(value->value) ? "an integer below 2^63" : "an integer");
}

std::optional<double> GgufView::find_number(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (const auto* v = std::get_if<double>(&value->value)) return *v;
  if (const auto* v = std::get_if<int64_t>(&value->value)) return static_cast<double>(*v);
  if (const auto* v = std::get_if<uint64_t>(&value->value)) return static_cast<double>(*v);
  wrong_type(*this, key, *value, "a number");
}

std::optional<bool> GgufView::find_bool(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (const auto* v = std::get_if<bool>(&value->value)) return *v;
  wrong_type(*this, key, *value, "bool");
}

std::optional<std::string_view> GgufView::find_string(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (const auto* v = std::get_if<std::string_view>(&value->value)) return *v;
  wrong_type(*this, key, *value, "string");
}

const GgufArray* GgufView::find_array(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return nullptr;
  if (const auto* v = std::get_if<GgufArray>(&value->value)) return v;
  wrong_type(*this, key, *value, "an array");
}

const std::vector<std::string_view>* GgufView::find_strings(std::string_view key) const {
  const GgufArray* array = find_array(key);
  if (!array) return nullptr;
  if (array->element != GgufType::kString) wrong_type(*this, key, *find(key), "an array of strings");
  return &array->strings;
}

std::optional<std::vector<int64_t>> GgufView::find_ints(std::string_view key) const {
  const GgufArray* array = find_array(key);
  if (!array) return std::nullopt;
  if (!is_integer(array->element)) wrong_type(*this, key, *find(key), "an array of integers");
  std::vector<int64_t> out(array->size);
  for (size_t i = 0; i < out.size(); ++i) out[i] = array->int_at(i);
  return out;
}

std::optional<std::vector<float>> GgufView::find_numbers(std::string_view key) const {
  const GgufArray* array = find_array(key);
  if (!array) return std::nullopt;
  if (!is_number(array->element)) wrong_type(*this, key, *find(key), "an array of numbers");
  std::vector<float> out(array->size);
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(array->number_at(i));
  return out;
}

uint32_t GgufView::require_u32(std::string_view key) const {
  const int64_t value = require_int(key);
  if (value < 0 || value > static_cast<int64_t>(UINT32_MAX)) {
    throw Error(Errc::kBadFormat, source_ + ": key " + std::string(key) + " is " + std::to_string(value) +
                                      ", expected a number from 0 to 4294967295");
  }
  return static_cast<uint32_t>(value);
}

int64_t GgufView::require_int(std::string_view key) const { return require(find_int(key), *this, key, "integer"); }
double GgufView::require_number(std::string_view key) const { return require(find_number(key), *this, key, "f32"); }
bool GgufView::require_bool(std::string_view key) const { return require(find_bool(key), *this, key, "bool"); }

std::string_view GgufView::require_string(std::string_view key) const {
  return require(find_string(key), *this, key, "string");
}

const std::vector<std::string_view>& GgufView::require_strings(std::string_view key) const {
  const auto* found = find_strings(key);
  if (!found) absent(*this, key, "array of string");
  return *found;
}

std::vector<int64_t> GgufView::require_ints(std::string_view key) const {
  return require(find_ints(key), *this, key, "array of integers");
}

std::vector<float> GgufView::require_numbers(std::string_view key) const {
  return require(find_numbers(key), *this, key, "array of numbers");
}

const GgufTensor& GgufView::require_tensor(std::string_view name) const {
  if (const GgufTensor* found = find_tensor(name)) return *found;
  throw Error(Errc::kNotFound, source_ + ": no tensor " + std::string(name) + " among its " +
                                   std::to_string(tensors_.size()) + " tensors");
}

GgufFile GgufFile::open(const std::string& path) {
  GgufFile out;
  out.file_ = MappedFile::open(path);
  Result<GgufView> parsed = parse_gguf(out.file_->bytes());
  if (!parsed) throw Error(parsed.error().code(), path + ": " + parsed.error().what());
  auto view = std::make_shared<GgufView>(std::move(parsed).value());
  view->source_ = path;
  out.view_ = std::move(view);
  return out;
}

Tensor dequantize(const GgufTensor& tensor, DType dtype) {
  if (dtype != DType::kF32 && dtype != DType::kBf16) {
    throw Error(Errc::kUnsupported,
                "tensor " + tensor.name + ": cannot dequantise to " + name_of(dtype) + ", expected F32 or BF16");
  }
  if (!info_of(tensor.type).can_dequantize) {
    throw Error(Errc::kUnsupported, "tensor " + tensor.name + " is stored as " + name_of(tensor.type) +
                                        ", which is not implemented: convert the file to Q8_0 or F16");
  }
  Tensor out(dtype, tensor.shape);
  if (dtype == DType::kF32) {
    dequantize(tensor.type, tensor.data, tensor.elements, out.as<float>());
  } else {
    dequantize_bf16(tensor.type, tensor.data, tensor.elements, out.as<uint16_t>());
  }
  return out;
}

}  // namespace saif
