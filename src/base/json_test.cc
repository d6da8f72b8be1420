#include "saif/json.h"

#include <gtest/gtest.h>

#include <limits>

#include "saif/options.h"

namespace saif {
namespace {

template <typename F>
std::string message_of(const F& f) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::kBadFormat);
    return e.what();
  }
  return "nothing was thrown";
}

template <typename T>
void expect_limits() {
  constexpr int64_t kLeast = std::numeric_limits<T>::min(), kMost = std::numeric_limits<T>::max();
  EXPECT_EQ(Json(kLeast).as<T>(), kLeast);
  EXPECT_EQ(Json(kMost).as<T>(), kMost);
  const std::string range = ", expected an integer from " + std::to_string(kLeast) + " to " + std::to_string(kMost);
  for (const int64_t beyond : {kLeast - 1, kMost + 1}) {
    EXPECT_EQ(message_of([&] { return Json(beyond).as<T>(); }), "JSON: found " + std::to_string(beyond) + range);
  }
}

TEST(JsonInteger, KeepsItsValueOrIsRefused) {
  expect_limits<int8_t>();
  expect_limits<uint8_t>();
  expect_limits<int32_t>();
  expect_limits<uint32_t>();
  EXPECT_EQ(Json(INT64_MIN).as<int64_t>(), INT64_MIN);
  EXPECT_EQ(Json(INT64_MAX).as<int64_t>(), INT64_MAX);
  EXPECT_EQ(Json(INT64_MAX).as<uint64_t>(), static_cast<uint64_t>(INT64_MAX));
  EXPECT_EQ(message_of([] { return Json(-1).as<size_t>(); }),
            "JSON: found -1, expected an integer from 0 to 9223372036854775807");
}

TEST(JsonInteger, OtherTypesAreRefused) {
  EXPECT_EQ(Json(3.0).as<int>(), 3);
  for (const Json& other : {Json(3.5), Json("3"), Json(true), Json(nullptr), Json(1e300)}) {
    EXPECT_NE(message_of([&] { return other.as<int>(); }).find("expected an integer"), std::string::npos);
  }
}

struct Options {
  int k = 15;
  int64_t tokens = 0;
  std::vector<int> layers;
  template <typename V>
  void describe(V& v) {
    v("k", k, "");
    v("tokens", tokens, "");
    v("layers", layers, "");
  }
};

Options options_of(const std::string& text) { return options_from_json<Options>(parse_json(text).value(), "finding"); }

TEST(OptionsFromJson, IntegersAreNotCut) {
  const Options read = options_of(R"({"k": -7, "tokens": 4294967311, "layers": [1, 2147483647]})");
  EXPECT_EQ(read.k, -7);
  EXPECT_EQ(read.tokens, 4'294'967'311);
  EXPECT_EQ(read.layers, (std::vector<int>{1, 2'147'483'647}));
  // 2^32 + 15, whose low half is the default.
  EXPECT_EQ(message_of([] { options_of(R"({"k": 4294967311})"); }),
            "\"k\": JSON: found 4294967311, expected an integer from -2147483648 to 2147483647");
  EXPECT_EQ(message_of([] { options_of(R"({"layers": [1, 2147483648]})"); }),
            "\"layers\": JSON: found 2147483648, expected an integer from -2147483648 to 2147483647");
  EXPECT_EQ(message_of([] { options_of(R"({"k": "many"})"); }),
            "\"k\": JSON: found a string (\"many\"), expected an integer");
}

}  // namespace
}  // namespace saif
