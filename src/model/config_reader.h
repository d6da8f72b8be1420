// A config as a closed world: every key is asked for or ignored with a reason; finish() refuses what is left. Serves
// config.json and the metadata of a GGUF file alike. Not thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "saif/json.h"

namespace saif {

class ConfigReader {
 public:
  // `source` begins every message: "/path/config.json".
  ConfigReader(std::string source, Json object);

  // The value, which counts as read; nullptr when the key is absent or null.
  const Json* find(std::string_view key);
  bool present(std::string_view key) { return find(key) != nullptr; }
  // Not there at all: a null is there, and may say "none" where the default is something.
  bool absent(std::string_view key) const { return object_.find(key) == nullptr; }

  // Throw kNotFound when the key is missing (and no fallback is given), kBadFormat when the value is of another type or
  // out of range. size: an integer in [1, 2^31).
  int64_t size(std::string_view key, std::optional<int64_t> fallback = {});
  double number(std::string_view key, std::optional<double> fallback = {});
  bool boolean(std::string_view key, std::optional<bool> fallback = {});
  std::string text(std::string_view key, const std::optional<std::string>& fallback = {});
  // An object value as a closed world of its own; an empty one when the key is absent or null.
  ConfigReader nested(std::string_view key);

  void ignore(std::initializer_list<std::string_view> keys, std::string_view reason);
  // Present and another value than the only one that is implemented: kUnsupported with the reason.
  void require(std::string_view key, const Json& only, std::string_view reason);
  // Two keys of which one would have to be passed over in silence. `other`: where the other one stands and its value.
  [[noreturn]] void conflict(std::string_view key, const std::string& other, std::string_view todo);
  [[noreturn]] void fail(std::string_view key, const std::string& found, const std::string& expected) const;

  // Throws kUnsupported naming every key that was neither read nor ignored.
  void finish() const;

  const std::string& source() const { return source_; }
  // "key: reason" of the ignored keys that were there.
  const std::vector<std::string>& ignored() const { return ignored_; }

 private:
  const Json& must(std::string_view key);
  std::string source_;
  Json object_;
  std::set<std::string, std::less<>> seen_;
  std::vector<std::string> ignored_;
};

}  // namespace saif
