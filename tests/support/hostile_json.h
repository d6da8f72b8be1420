// Hostile variants of a good configuration, and what they cost.
#pragma once

#include <sys/resource.h>

#include <string>
#include <vector>

#include "saif/json.h"

namespace saif::test {

// The process's largest resident memory so far, in bytes.
inline int64_t peak_memory() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

// What a pass over hostile variants may add to it. Under AddressSanitizer freed memory waits in a quarantine of 256 MiB
// before it is used again.
#ifdef __SANITIZE_ADDRESS__
inline constexpr int64_t kMayGrow = 512 << 20;
#else
inline constexpr int64_t kMayGrow = 64 << 20;
#endif

// Every key, and every key of the objects in it, with every hostile value; left out; given twice; the text cut off
// everywhere; and keys and nesting without end.
inline std::vector<std::string> hostile_variants(const Json& good) {
  const std::vector<Json> values = {Json(),
                                    true,
                                    false,
                                    0,
                                    -1,
                                    1,
                                    7,
                                    int64_t{1} << 30,
                                    (int64_t{1} << 31) - 1,
                                    int64_t{1} << 32,
                                    INT64_MAX,
                                    INT64_MIN,
                                    0.5,
                                    -0.0,
                                    1e-320,
                                    1e300,
                                    "",
                                    "x",
                                    "../../etc/passwd",
                                    std::string(5000, 'n'),
                                    std::string("a\0b\n", 4),
                                    "blocks.99999999999999999999.hook_resid_post",
                                    Json::array(),
                                    Json(Json::Array{1, 2, "x"}),
                                    Json::object(),
                                    Json::object({{"k", 1}})};
  std::vector<std::string> out;
  const std::string text = good.dump();
  for (const auto& [key, value] : good.members()) {
    Json changed = good;
    for (const Json& hostile : values) {
      changed[key] = hostile;
      out.push_back(changed.dump());
    }
    if (value.is_object()) {
      for (const auto& [inner, unused] : value.members()) {
        for (const Json& hostile : values) {
          changed = good;
          changed[key][inner] = hostile;
          out.push_back(changed.dump());
        }
      }
    }
    Json without = Json::object();
    for (const auto& [other, kept] : good.members()) {
      if (other != key) without[other] = kept;
    }
    out.push_back(without.dump());
    out.push_back("{" + Json(key).dump() + ":1," + text.substr(1));
    changed = good;
    out.push_back(text.substr(0, text.size() - 1) + "," + Json(key + "_").dump() + ":1}");
  }
  for (const std::string number : {"1e999", "-1e999", "123456789012345678901234567890", "NaN", "Infinity", "01"}) {
    for (const auto& [key, value] : good.members()) {
      Json changed = good;
      changed[key] = "@";
      std::string one = changed.dump();
      one.replace(one.find("\"@\""), 3, number);
      out.push_back(one);
    }
  }
  for (size_t n = 0; n < text.size(); n += 3) out.push_back(text.substr(0, n));
  out.push_back(std::string(100'000, '['));
  std::string nested;
  for (int i = 0; i < 20'000; ++i) nested += "{\"a\":";
  out.push_back(nested);
  return out;
}

}  // namespace saif::test
