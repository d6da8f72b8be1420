#include "report/values.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace saif::report {

std::optional<double> number(const Json& object, std::string_view key) {
  const Json* found = object.is_object() ? object.find(key) : nullptr;
  if (!found || !found->is_number() || !std::isfinite(found->as_double())) return std::nullopt;
  return found->as_double();
}

std::optional<Interval> interval(const Json& object, std::string_view key) {
  const Json* found = object.is_object() ? object.find(key) : nullptr;
  if (!found || !found->is_array() || found->size() != 2) return std::nullopt;
  if (!(*found)[0].is_number() || !(*found)[1].is_number()) return std::nullopt;
  const double low = (*found)[0].as_double(), high = (*found)[1].as_double();
  return Interval{std::clamp(low, 0.0, 1.0), std::clamp(high, 0.0, 1.0)};
}

std::string text(const Json& object, std::string_view key, std::string_view otherwise) {
  const Json* found = object.is_object() ? object.find(key) : nullptr;
  return found && found->is_string() ? found->as_string() : std::string(otherwise);
}

bool truth(const Json& object, std::string_view key) {
  const Json* found = object.is_object() ? object.find(key) : nullptr;
  return found && found->is_bool() && found->as_bool();
}

const Json::Array& list(const Json& object, std::string_view key) {
  static const Json::Array kNone;
  const Json* found = object.is_object() ? object.find(key) : nullptr;
  if (!found || found->is_null()) return kNone;
  if (!found->is_array()) {
    throw Error(Errc::kBadFormat,
                "report: \"" + std::string(key) + "\" is no array; expected a list of objects (docs/report.md)");
  }
  return found->items();
}

std::string fixed(double value, int digits) {
  if (!std::isfinite(value)) return std::string(kAbsent);
  if (std::fabs(value) >= 1e15) return short_number(value);
  std::array<char, 64> buffer;
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::fixed, digits);
  std::string out(buffer.data(), end.ptr);
  const bool zero = out.find_first_not_of("-0.") == std::string::npos;
  return zero && out.front() == '-' ? out.substr(1) : out;
}

std::string fixed(const std::optional<double>& value, int digits) {
  return value ? fixed(*value, digits) : std::string(kAbsent);
}

std::string short_number(double value) {
  if (!std::isfinite(value)) return std::string(kAbsent);
  std::array<char, 64> buffer;
  const bool whole = value == std::floor(value) && std::fabs(value) < 1e15;
  const auto end =
      whole ? std::to_chars(buffer.data(), buffer.data() + buffer.size(), static_cast<int64_t>(value))
            : std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::general, 4);
  return {buffer.data(), end.ptr};
}

std::string short_number(const std::optional<double>& value) {
  return value ? short_number(*value) : std::string(kAbsent);
}

std::string p_text(double p) { return p < 0.001 ? "< 0.001" : fixed(p, 3); }

std::string share_text(double share, const std::optional<Interval>& ci) {
  std::string out = fixed(share, 2);
  if (ci) out += " [" + fixed(ci->low, 2) + ", " + fixed(ci->high, 2) + "]";
  return out;
}

}  // namespace saif::report
