#include <algorithm>
#include <functional>

#include "kernels/backend.h"

namespace saif {

void TopCandidates::clear(float new_least) {
  index.clear();
  rank.clear();
  value.clear();
  least = new_least;
}

void TopCandidates::keep(int64_t k) {
  const auto most = static_cast<size_t>(k);
  if (rank.size() <= most) return;
  std::vector<float> order = rank;
  const auto last = order.begin() + static_cast<ptrdiff_t>(most) - 1;
  std::nth_element(order.begin(), last, order.end(), std::greater<>());
  least = *last;
  auto ties = k - std::count_if(order.begin(), last, [&](float r) { return r > least; });
  size_t kept = 0;
  for (size_t i = 0; i < rank.size(); ++i) {
    if (rank[i] < least || (rank[i] == least && ties-- <= 0)) continue;
    index[kept] = index[i];
    rank[kept] = rank[i];
    value[kept++] = value[i];
  }
  index.resize(kept);
  rank.resize(kept);
  value.resize(kept);
}

}  // namespace saif
