// A counter-based generator (Philox4x32-10, Salmon et al. 2011): the value depends on (seed, stream, counter) only, so
// that results do not depend on thread count or batch. Not for cryptography.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

namespace saif {

class Rng {
 public:
  explicit Rng(uint64_t seed, uint64_t stream = 0) : key_(seed), stream_(stream) {}

  uint32_t next_u32() {
    if (used_ == 4) refill();
    return block_[static_cast<size_t>(used_++)];
  }
  uint64_t next_u64() {
    const uint64_t high = next_u32();
    return (high << 32) | next_u32();
  }
  // [0, 1), 53 bits.
  double uniform() { return static_cast<double>(next_u64() >> 11) * 0x1.0p-53; }
  // [0, n), without bias worth naming for n < 2^32.
  uint64_t below(uint64_t n) { return next_u64() % n; }
  // Standard normal (Box-Muller).
  double normal() {
    const double u = 1.0 - uniform();
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * uniform());
  }
  void seek(uint64_t counter) {
    counter_ = counter;
    used_ = 4;
  }

 private:
  void refill() {
    std::array<uint32_t, 4> c = {static_cast<uint32_t>(counter_), static_cast<uint32_t>(counter_ >> 32),
                                 static_cast<uint32_t>(stream_), static_cast<uint32_t>(stream_ >> 32)};
    uint32_t k0 = static_cast<uint32_t>(key_), k1 = static_cast<uint32_t>(key_ >> 32);
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = uint64_t{0xD2511F53} * c[0], p1 = uint64_t{0xCD9E8D57} * c[2];
      c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
           static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
      k0 += 0x9E3779B9;
      k1 += 0xBB67AE85;
    }
    block_ = c;
    ++counter_;
    used_ = 0;
  }

  uint64_t key_, stream_, counter_ = 0;
  std::array<uint32_t, 4> block_{};
  int used_ = 4;
};

// Fisher-Yates: every order is equally likely.
template <typename T>
void shuffle(std::vector<T>& items, Rng& rng) {
  for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[rng.below(i)]);
}

}  // namespace saif
