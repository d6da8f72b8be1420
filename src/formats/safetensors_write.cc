// Writing safetensors.
#include <algorithm>
#include <cstring>

#include "formats/safetensors.h"
#include "saif/json.h"

namespace saif {
namespace {

// JSON text cannot carry invalid UTF-8: such a name would come back as another one.
void check_text(const std::string& path, const std::string& text) {
  const Result<Json> back = parse_json(Json(text).dump());
  if (back.ok() && back.value().is_string() && back.value().as_string() == text) return;
  throw Error(Errc::kInvalidArgument, path + ": name or metadata " + Json(text).dump() + " is not valid UTF-8");
}

void check_names(const std::string& path, const std::vector<const NamedTensor*>& sorted) {
  std::vector<std::string_view> names;
  for (const NamedTensor* tensor : sorted) {
    check_text(path, tensor->name);
    if (tensor->name == "__metadata__") {
      throw Error(Errc::kInvalidArgument, path + ": a tensor cannot be named __metadata__");
    }
    names.push_back(tensor->name);
  }
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) {
    throw Error(Errc::kInvalidArgument, path + ": tensor " + std::string(*twice) + " is given twice");
  }
}

}  // namespace

void write_safetensors(const std::string& path, std::span<const NamedTensor> tensors,
                       const SafetensorsMetadata& metadata) {
  std::vector<const NamedTensor*> sorted;
  for (const NamedTensor& tensor : tensors) sorted.push_back(&tensor);
  check_names(path, sorted);
  std::sort(sorted.begin(), sorted.end(), [](const NamedTensor* a, const NamedTensor* b) {
    const size_t wide_a = size_of(a->view.dtype), wide_b = size_of(b->view.dtype);
    return wide_a != wide_b ? wide_a > wide_b : a->name < b->name;
  });

  Json header = Json::object();
  if (!metadata.empty()) {
    Json values = Json::object();
    for (const auto& [key, value] : metadata) {
      check_text(path, key);
      check_text(path, value);
      values.members().emplace_back(key, value);
    }
    header.members().emplace_back("__metadata__", std::move(values));
  }
  size_t at = 0;
  for (const NamedTensor* tensor : sorted) {
    const size_t end = at + tensor->view.bytes();
    header.members().emplace_back(
        tensor->name,
        Json::object({{"dtype", name_of(tensor->view.dtype)},
                      {"shape", tensor->view.shape},
                      {"data_offsets", Json(Json::Array{static_cast<int64_t>(at), static_cast<int64_t>(end)})}}));
    at = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');

  AtomicFile file(path);
  const uint64_t length = text.size();
  file.write(&length, sizeof length);
  file.write(text.data(), text.size());
  for (const NamedTensor* tensor : sorted) {
    if (tensor->view.bytes() > 0) file.write(tensor->view.data, tensor->view.bytes());
  }
  file.commit();
}

}  // namespace saif
