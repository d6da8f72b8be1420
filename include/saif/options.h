// Options structs describe themselves once; that one description feeds command-line flags, JSON bodies, Python keywords
// and the manifest of a result.
//
//   struct FindOptions {
//     int k = 15;
//     template <typename V> void describe(V& v) { v("k", k, "latents kept per layer"); }
//   };
//
// A visitor is called as v(name, reference, help) with bool, int, int64_t, float, double, std::string, or a std::vector
// of int, double or std::string. describe() and the functions here touch the struct they are given and nothing else.
#pragma once

#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "saif/error.h"
#include "saif/json.h"

namespace saif {

// The candidate nearest to `name` by edit distance, or "" when none is near.
std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates);

namespace internal {

struct ToJson {
  Json out = Json::object();
  template <typename T>
  void operator()(const char* name, T& value, const char*) {
    out[name] = Json(value);
  }
};

inline void assign(const Json& j, bool& out) { out = j.as_bool(); }
inline void assign(const Json& j, std::string& out) { out = j.as_string(); }
template <typename T>
  requires(std::is_integral_v<T> && !std::is_same_v<T, bool>)
void assign(const Json& j, T& out) {
  out = j.as<T>();
}
template <typename T>
  requires std::is_floating_point_v<T>
void assign(const Json& j, T& out) {
  out = static_cast<T>(j.as_double());
}
template <typename T>
void assign(const Json& j, std::vector<T>& out) {
  out.clear();
  for (const Json& item : j.items()) {
    T value{};
    assign(item, value);
    out.push_back(value);
  }
}

[[noreturn]] void refuse_value(const char* name, const Error& why);

struct FromJson {
  const Json& in;
  std::vector<std::string> names;
  template <typename T>
  void operator()(const char* name, T& value, const char*) {
    names.emplace_back(name);
    const Json* j = in.find(name);
    if (j == nullptr) return;
    try {
      assign(*j, value);
    } catch (const Error& e) {
      refuse_value(name, e);
    }
  }
};

void refuse_unknown_keys(const Json& in, const std::vector<std::string>& known, const std::string& what);

}  // namespace internal

template <typename Options>
Json options_to_json(const Options& options) {
  internal::ToJson v;
  const_cast<Options&>(options).describe(v);
  return std::move(v.out);
}

// Unknown keys are an error that offers the nearest known one. `what` names the object in messages.
template <typename Options>
Options options_from_json(const Json& in, const std::string& what) {
  Options options;
  internal::FromJson v{in, {}};
  options.describe(v);
  internal::refuse_unknown_keys(in, v.names, what);
  return options;
}

}  // namespace saif
