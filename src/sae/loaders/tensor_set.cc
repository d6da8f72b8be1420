#include "sae/loaders/tensor_set.h"

#include <algorithm>
#include <cmath>
#include <regex>

#include "saif/options.h"

namespace saif {
namespace {

std::string text_of(const std::vector<int64_t>& shape) {
  TensorView view;
  view.shape = shape;
  return view.shape_text();
}

bool is_float(DType dtype) { return dtype == DType::kF32 || dtype == DType::kBf16 || dtype == DType::kF16; }

}  // namespace

TensorSet::TensorSet(const SafetensorsFile& file) : path_(file.path()) {
  for (const std::string& name : file.names()) tensors_.emplace_back(name, file.at(name));
}

const TensorView* TensorSet::find(std::string_view name) const {
  const auto at = std::find_if(tensors_.begin(), tensors_.end(), [&](const auto& t) { return t.first == name; });
  return at == tensors_.end() ? nullptr : &at->second;
}

const TensorView& TensorSet::require(const std::string& name, const std::string& reason) {
  const TensorView* view = find(name);
  if (view == nullptr) throw Error(Errc::kBadFormat, path_ + ": tensor \"" + name + "\" is missing" + reason);
  used_.insert(name);
  return *view;
}

std::pair<int64_t, int64_t> TensorSet::size_of_matrix(const std::string& name) const {
  const TensorView* view = find(name);
  if (view == nullptr) throw Error(Errc::kBadFormat, path_ + ": tensor \"" + name + "\" is missing");
  if (view->shape.size() != 2 || view->shape[0] < 1 || view->shape[1] < 1) {
    throw Error(Errc::kBadFormat,
                path_ + ": tensor \"" + name + "\" has shape " + view->shape_text() + "; expected a matrix");
  }
  return {view->shape[0], view->shape[1]};
}

TensorView TensorSet::matrix(const std::string& name, const std::vector<int64_t>& shape, const std::string& reason) {
  const TensorView& view = require(name, reason + "; expected shape " + text_of(shape));
  if (!is_float(view.dtype)) {
    throw Error(Errc::kUnsupported,
                path_ + ": tensor \"" + name + "\" has dtype " + name_of(view.dtype) + "; expected F32, BF16 or F16");
  }
  if (view.shape != shape) {
    throw Error(Errc::kBadFormat, path_ + ": tensor \"" + name + "\" has shape " + view.shape_text() + "; expected " +
                                      text_of(shape) + " from the SAE's d_in, d_sae and d_out");
  }
  return view;
}

std::vector<float> TensorSet::vector(const std::string& name, int64_t size, const std::string& reason) {
  const TensorView view = matrix(name, {size}, reason);
  require_finite(view, path_, name);
  const Tensor values = to_f32(view);
  return {values.as<float>(), values.as<float>() + size};
}

float TensorSet::scalar(const std::string& name) {
  const TensorView& view = require(name, "");
  if (!is_float(view.dtype) || view.elements() != 1) {
    throw Error(Errc::kBadFormat, path_ + ": tensor \"" + name + "\" is " + name_of(view.dtype) + " " +
                                      view.shape_text() + "; expected one floating-point number");
  }
  require_finite(view, path_, name);
  return to_f32(view).as<float>()[0];
}

std::vector<int64_t> TensorSet::integers(const std::string& name) {
  const TensorView& view = require(name, "");
  const int64_t n = view.elements();
  if (view.shape.size() <= 1 && view.dtype == DType::kI64) {
    return {static_cast<const int64_t*>(view.data), static_cast<const int64_t*>(view.data) + n};
  }
  if (view.shape.size() <= 1 && view.dtype == DType::kI32) {
    return {static_cast<const int32_t*>(view.data), static_cast<const int32_t*>(view.data) + n};
  }
  throw Error(Errc::kBadFormat, path_ + ": tensor \"" + name + "\" is " + name_of(view.dtype) + " " +
                                    view.shape_text() + "; expected I64 or I32, one or a row of them");
}

int64_t TensorSet::integer(const std::string& name) {
  const std::vector<int64_t> values = integers(name);
  if (values.size() == 1) return values[0];
  throw Error(Errc::kBadFormat,
              path_ + ": tensor \"" + name + "\" has " + std::to_string(values.size()) + " elements; expected one");
}

bool TensorSet::all_ones(const std::string& name) const {
  const TensorView* view = find(name);
  if (view == nullptr || !is_float(view->dtype)) return false;
  const Tensor values = to_f32(*view);
  const auto* data = values.as<float>();
  return std::all_of(data, data + values.elements(), [](float v) { return std::abs(v - 1.0f) <= 1e-5f; });
}

void TensorSet::finish() const {
  for (const auto& [name, view] : tensors_) {
    if (used_.contains(name)) continue;
    throw Error(Errc::kUnsupported, path_ + ": tensor \"" + name + "\" " + view.shape_text() +
                                        " is not known for this architecture, so its effect cannot be honoured");
  }
}

KeySet::KeySet(std::string file, Json json) : file_(std::move(file)), json_(std::move(json)) {
  if (!json_.is_object()) fail(Errc::kBadFormat, "expected a JSON object");
}

void KeySet::fail(Errc code, const std::string& message) const { throw Error(code, file_ + ": " + message); }

const Json* KeySet::find(const std::string& key) {
  used_.insert(key);
  const Json* value = json_.find(key);
  return value != nullptr && value->is_null() ? nullptr : value;
}

bool KeySet::contains(const std::string& key) const {
  const Json* value = json_.find(key);
  return value != nullptr && !value->is_null();
}

bool KeySet::is_null(const std::string& key) const {
  const Json* value = json_.find(key);
  return value != nullptr && value->is_null();
}

int64_t KeySet::size(const std::string& key) {
  const Json* value = find(key);
  if (value == nullptr) fail(Errc::kBadFormat, "\"" + key + "\" is missing");
  const double number = value->is_number() ? value->as_double() : 0.0;
  if (number != std::floor(number) || number < 1 || number > 1 << 30) {
    fail(Errc::kBadFormat, "\"" + key + "\" is " + value->dump() + "; expected a whole number from 1 to 2^30");
  }
  return static_cast<int64_t>(number);
}

int64_t KeySet::size(const std::string& key, int64_t otherwise) { return find(key) == nullptr ? otherwise : size(key); }

double KeySet::number(const std::string& key) {
  const Json* value = find(key);
  if (value == nullptr) fail(Errc::kBadFormat, "\"" + key + "\" is missing");
  if (!value->is_number() || !std::isfinite(value->as_double())) {
    fail(Errc::kBadFormat, "\"" + key + "\" is " + value->dump() + "; expected a number");
  }
  return value->as_double();
}

double KeySet::number(const std::string& key, double otherwise) {
  return find(key) == nullptr ? otherwise : number(key);
}

bool KeySet::boolean(const std::string& key, bool otherwise) {
  const Json* value = find(key);
  if (value == nullptr) return otherwise;
  if (!value->is_bool()) fail(Errc::kBadFormat, "\"" + key + "\" is " + value->dump() + "; expected true or false");
  return value->as_bool();
}

std::string KeySet::string(const std::string& key) {
  const Json* value = find(key);
  if (value == nullptr) fail(Errc::kBadFormat, "\"" + key + "\" is missing");
  if (!value->is_string()) fail(Errc::kBadFormat, "\"" + key + "\" is " + value->dump() + "; expected a string");
  return value->as_string();
}

std::string KeySet::string(const std::string& key, const std::string& otherwise) {
  return find(key) == nullptr ? otherwise : string(key);
}

void KeySet::require_value(const std::string& key, const Json& value, const std::string& why) {
  const Json* found = find(key);
  if (found == nullptr || found->dump() == value.dump()) return;
  fail(Errc::kUnsupported, "\"" + key + "\" is " + found->dump() + "; expected " + value.dump() + ": " + why);
}

void KeySet::ignore(const std::vector<std::string>& keys, Json& metadata) {
  for (const std::string& key : keys) {
    if (const Json* value = find(key)) metadata[key] = *value;
  }
}

void KeySet::finish() const {
  for (const auto& [key, value] : json_.members()) {
    if (used_.contains(key)) continue;
    const std::string near = nearest_name(key, {used_.begin(), used_.end()});
    fail(Errc::kUnsupported, "key \"" + key +
                                 "\" is not known for this architecture, so its effect cannot be honoured" +
                                 (near.empty() ? "" : "; did you mean \"" + near + "\"?"));
  }
}

void set_linear_decoder(SaeSource& source, const TensorView& weight) {
  const auto copy = std::make_shared<Tensor>(transposed(weight));
  source.w_dec = copy->view();
  source.owner =
      std::make_shared<std::pair<std::shared_ptr<const void>, std::shared_ptr<const Tensor>>>(source.owner, copy);
}

std::optional<std::smatch> last_match(const std::string& text, const std::regex& pattern) {
  std::optional<std::smatch> last;
  for (std::sregex_iterator at(text.begin(), text.end(), pattern), end; at != end; ++at) last = *at;
  return last;
}

std::string site_of_module(const std::string& module) {
  static const std::regex pattern(R"((?:model\.|gpt_neox\.|transformer\.)?(?:layers|h)\.(\d{1,4})(?:\.(.+))?)");
  static const std::vector<std::pair<std::string, std::string>> kSuffixes = {
      {"", "hook_resid_post"},
      {"output", "hook_resid_post"},
      {"mlp", "hook_mlp_out"},
      {"mlp.output", "hook_mlp_out"},
      {"post_feedforward_layernorm.output", "hook_mlp_out"},
      {"pre_feedforward_layernorm.output", "ln2.hook_normalized"},
      {"attn", "hook_attn_out"},
      {"attention", "hook_attn_out"},
      {"self_attn", "hook_attn_out"},
      {"self_attn.output", "hook_attn_out"},
      {"self_attn.o_proj.input", "attn.hook_z"},
  };
  std::smatch match;
  if (!std::regex_match(module, match, pattern)) return "";
  for (const auto& [suffix, site] : kSuffixes) {
    if (match[2].str() == suffix) return "blocks." + match[1].str() + "." + site;
  }
  return "";
}

}  // namespace saif
