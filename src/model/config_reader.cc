#include "model/config_reader.h"

#include <cmath>

namespace saif {

ConfigReader::ConfigReader(std::string source, Json object) : source_(std::move(source)), object_(std::move(object)) {
  if (!object_.is_object())
    throw Error(Errc::kBadFormat, source_ + ": found no JSON object, expected a model's config");
}

const Json* ConfigReader::find(std::string_view key) {
  seen_.emplace(key);
  const Json* value = object_.find(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

const Json& ConfigReader::must(std::string_view key) {
  const Json* value = find(key);
  if (value == nullptr) {
    throw Error(Errc::kNotFound, source_ + ": the key \"" + std::string(key) + "\" is missing; it has no safe default");
  }
  return *value;
}

int64_t ConfigReader::size(std::string_view key, std::optional<int64_t> fallback) {
  if (fallback && !present(key)) return *fallback;
  const Json& value = must(key);
  if (!value.is_int() || value.as_int() < 1 || value.as_int() >= int64_t{1} << 31) {
    fail(key, value.dump(), "an integer of at least 1");
  }
  return value.as_int();
}

double ConfigReader::number(std::string_view key, std::optional<double> fallback) {
  if (fallback && !present(key)) return *fallback;
  const Json& value = must(key);
  if (!value.is_number() || !std::isfinite(value.as_double())) fail(key, value.dump(), "a number");
  return value.as_double();
}

bool ConfigReader::boolean(std::string_view key, std::optional<bool> fallback) {
  if (fallback && !present(key)) return *fallback;
  const Json& value = must(key);
  if (!value.is_bool()) fail(key, value.dump(), "true or false");
  return value.as_bool();
}

std::string ConfigReader::text(std::string_view key, const std::optional<std::string>& fallback) {
  if (fallback && !present(key)) return *fallback;
  const Json& value = must(key);
  if (!value.is_string()) fail(key, value.dump(), "a string");
  return value.as_string();
}

ConfigReader ConfigReader::nested(std::string_view key) {
  const Json* value = find(key);
  if (value != nullptr && !value->is_object()) fail(key, value->dump(), "an object");
  return {source_ + ": " + std::string(key), value == nullptr ? Json::object() : *value};
}

void ConfigReader::ignore(std::initializer_list<std::string_view> keys, std::string_view reason) {
  for (const std::string_view key : keys) {
    if (present(key)) ignored_.push_back(std::string(key) + ": " + std::string(reason));
  }
}

void ConfigReader::require(std::string_view key, const Json& only, std::string_view reason) {
  const Json* value = find(key);
  if (value == nullptr || value->dump() == only.dump()) return;
  throw Error(Errc::kUnsupported, source_ + ": \"" + std::string(key) + "\" is " + value->dump() + "; only " +
                                      only.dump() + " is implemented (" + std::string(reason) + ")");
}

void ConfigReader::conflict(std::string_view key, const std::string& other, std::string_view todo) {
  throw Error(Errc::kBadFormat, source_ + ": \"" + std::string(key) + "\" is " + must(key).dump().substr(0, 60) +
                                    ", but " + other + ": " + std::string(todo));
}

void ConfigReader::fail(std::string_view key, const std::string& found, const std::string& expected) const {
  throw Error(Errc::kBadFormat, source_ + ": \"" + std::string(key) + "\" is " + found + ", expected " + expected);
}

void ConfigReader::finish() const {
  std::string unknown;
  for (const auto& [key, value] : object_.members()) {
    if (seen_.contains(key)) continue;
    unknown += (unknown.empty() ? "\"" : ", \"") + key + "\" (" + value.dump().substr(0, 60) + ")";
  }
  if (unknown.empty()) return;
  throw Error(Errc::kUnsupported, source_ + ": unknown key " + unknown +
                                      "; a key that is not understood may change the arithmetic, so it is refused: "
                                      "remove it if you know that it does not");
}

}  // namespace saif
