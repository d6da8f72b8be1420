// Lenient access to a report's JSON and the numbers of its tables as text. What is absent is shown as a dash.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "saif/json.h"
#include "saif/stats.h"

namespace saif::report {

inline constexpr std::string_view kAbsent = "–";

// A member of the type asked for; nothing when it is absent or of another type.
std::optional<double> number(const Json& object, std::string_view key);
std::optional<Interval> interval(const Json& object, std::string_view key);  // [low, high], clipped to 0...1
std::string text(const Json& object, std::string_view key, std::string_view otherwise = "");
bool truth(const Json& object, std::string_view key);
const Json::Array& list(const Json& object, std::string_view key);  // empty when absent; throws kBadFormat otherwise

std::string fixed(double value, int digits);                        // "0.93"; the locale plays no part
std::string fixed(const std::optional<double>& value, int digits);  // or kAbsent
std::string short_number(double value);                             // at most four significant digits: "1.25", "12"
std::string short_number(const std::optional<double>& value);       // or kAbsent
std::string p_text(double p);                                       // "0.012", "< 0.001"
std::string share_text(double share, const std::optional<Interval>& ci);  // "0.93 [0.86, 0.97]"

}  // namespace saif::report
