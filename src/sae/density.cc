#include "sae/density.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace saif {
namespace {

constexpr double kBinsPerDecade = 2;

}  // namespace

FiringDensity density_of(std::span<const int64_t> fired, int64_t n) {
  FiringDensity out;
  std::map<int, int64_t> bins;  // number of half decades below 1, negative
  for (const int64_t count : fired) {
    if (count == 0) {
      ++out.never;
      continue;
    }
    const double at = std::log10(static_cast<double>(count) / static_cast<double>(n));
    ++bins[std::min(-1, static_cast<int>(std::floor(kBinsPerDecade * at)))];
  }
  if (bins.empty()) return out;
  for (int b = bins.begin()->first; b < 0; ++b) {
    out.bins.push_back({b / kBinsPerDecade, (b + 1) / kBinsPerDecade, bins.contains(b) ? bins.at(b) : 0});
  }
  return out;
}

Json density_json(int64_t never, std::span<const SaeBreakdown::Bin> bins) {
  Json list = Json::array();
  for (const SaeBreakdown::Bin& b : bins) {
    list.push_back(Json::object({{"log10_low", b.low}, {"log10_high", b.high}, {"latents", b.latents}}));
  }
  return Json::object({{"never", never}, {"bins", list}});
}

}  // namespace saif
