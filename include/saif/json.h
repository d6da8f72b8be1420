// A small JSON value: what configs, manifests, results and request bodies are made of.
// Objects keep the order in which keys were added. Integers keep 64 bits. Threads may read one at the same time;
// nobody else may while it is modified.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "saif/error.h"

namespace saif {

class Json {
 public:
  using Array = std::vector<Json>;
  using Object = std::vector<std::pair<std::string, Json>>;

  Json() = default;
  Json(std::nullptr_t) {}  // NOLINT(google-explicit-constructor)
  template <typename T>
    requires std::is_same_v<T, bool>
  Json(T b) : value_(b) {}  // NOLINT(google-explicit-constructor)
  template <typename T>
    requires(std::is_integral_v<T> && !std::is_same_v<T, bool>)
  Json(T i) : value_(static_cast<int64_t>(i)) {}  // NOLINT(google-explicit-constructor)
  template <typename T>
    requires std::is_floating_point_v<T>
  Json(T d) : value_(static_cast<double>(d)) {}         // NOLINT(google-explicit-constructor)
  Json(const char* s) : value_(std::string(s)) {}       // NOLINT(google-explicit-constructor)
  Json(std::string_view s) : value_(std::string(s)) {}  // NOLINT(google-explicit-constructor)
  Json(std::string s) : value_(std::move(s)) {}         // NOLINT(google-explicit-constructor)
  template <typename T>
  Json(const std::vector<T>& items)
      : value_(Array(items.begin(), items.end())) {}  // NOLINT(google-explicit-constructor)
  Json(Array a) : value_(std::move(a)) {}             // NOLINT(google-explicit-constructor)

  static Json array() { return Json(Array{}); }
  static Json object() {
    Json j;
    j.value_ = Object{};
    return j;
  }
  static Json object(std::initializer_list<std::pair<std::string, Json>> members) {
    Json j;
    j.value_ = Object(members.begin(), members.end());
    return j;
  }

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  bool is_bool() const { return std::holds_alternative<bool>(value_); }
  bool is_int() const { return std::holds_alternative<int64_t>(value_); }
  bool is_number() const { return is_int() || std::holds_alternative<double>(value_); }
  bool is_string() const { return std::holds_alternative<std::string>(value_); }
  bool is_array() const { return std::holds_alternative<Array>(value_); }
  bool is_object() const { return std::holds_alternative<Object>(value_); }

  // Typed access: each throws Error{kBadFormat} naming what was found where another type was expected.
  bool as_bool() const;
  int64_t as_int() const;  // also accepts a float that is integral
  // as_int() as a type that may hold less; a value outside its range is an error that names both.
  template <typename T>
    requires(std::is_integral_v<T> && !std::is_same_v<T, bool>)
  T as() const {
    const int64_t value = as_int();
    if (!std::in_range<T>(value)) {
      constexpr auto kMost = std::numeric_limits<T>::max();
      out_of_range(static_cast<int64_t>(std::numeric_limits<T>::min()),
                   std::in_range<int64_t>(kMost) ? static_cast<int64_t>(kMost) : INT64_MAX);
    }
    return static_cast<T>(value);
  }
  double as_double() const;  // also accepts an integer
  const std::string& as_string() const;
  const Array& items() const;
  Array& items();
  const Object& members() const;
  Object& members();

  size_t size() const;  // of an array or object; 0 for scalars
  const Json& operator[](size_t i) const { return items().at(i); }

  // Objects. find: nullptr when absent. at: throws kNotFound naming the key. operator[] inserts null when absent.
  const Json* find(std::string_view key) const;
  const Json& at(std::string_view key) const;
  Json& operator[](std::string_view key);
  bool contains(std::string_view key) const { return find(key) != nullptr; }

  void push_back(Json item);

  // Compact (indent < 0) or pretty text. NaN and infinities become null. Invalid UTF-8 is replaced by U+FFFD.
  std::string dump(int indent = -1) const;

 private:
  [[noreturn]] void out_of_range(int64_t least, int64_t most) const;

  std::variant<std::monostate, bool, int64_t, double, std::string, Array, Object> value_;
};

// Parses one JSON document (UTF-8, nesting at most 128 deep, duplicate keys refused). The error says line and column.
Result<Json> parse_json(std::string_view text);

// Reads and parses a file; throws Error naming the file.
Json read_json_file(const std::string& path);

// Writes beside and renames into place; throws Error{kIo}.
void write_json_file(const std::string& path, const Json& value, int indent = 2);

}  // namespace saif
