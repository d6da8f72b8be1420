#include <algorithm>
#include <map>
#include <mutex>

#include "base/check.h"
#include "model/forward.h"

namespace saif {
namespace {

// Memory of freed layers, kept for the next ones: fresh pages from the system cost more than the attention that reads
// them. Process-wide, since segments come and go in any order; thread-safe.
class KvPool {
 public:
  static KvPool& shared() {
    static KvPool& pool = *new KvPool;  // never destroyed: segments may outlive any static
    return pool;
  }
  // At least `floats` long; uninitialised.
  Tensor take(int64_t floats) {
    {
      const std::lock_guard lock(mutex_);
      const auto it = idle_.lower_bound(floats);
      if (it != idle_.end() && it->first <= 2 * floats) {
        idle_floats_ -= it->first;
        return std::move(idle_.extract(it).mapped());
      }
    }
    return Tensor(DType::kF32, {floats});
  }
  void give(Tensor memory) {
    const std::lock_guard lock(mutex_);
    const int64_t floats = memory.elements();
    if (idle_floats_ + floats > kMostIdleFloats) return;
    idle_floats_ += floats;
    idle_.emplace(floats, std::move(memory));
  }

 private:
  static constexpr int64_t kMostIdleFloats = int64_t{48} << 20;  // 192 MiB
  std::mutex mutex_;
  std::multimap<int64_t, Tensor> idle_;  // by length
  int64_t idle_floats_ = 0;
};

}  // namespace

KvSegment::KvSegment(const Architecture& arch, int64_t begin, int64_t capacity)
    : begin_(begin),
      capacity_((capacity + kKvBlock - 1) / kKvBlock * kKvBlock),
      n_kv_heads_(arch.n_kv_heads),
      d_head_(arch.d_head),
      in_bf16_(arch.kv_dtype == DType::kBf16),
      keys_(static_cast<size_t>(arch.n_layers)),
      values_(static_cast<size_t>(arch.n_layers)) {
  SAIF_CHECK(begin >= 0 && capacity >= 0, "KV segment with a negative begin or capacity");
}

KvSegment::~KvSegment() {
  for (size_t layer = 0; layer < keys_.size(); ++layer) release_layer(static_cast<int>(layer));
}

void KvSegment::grow_to(int64_t length) {
  SAIF_CHECK(length >= length_ && length <= capacity_, "KV segment of capacity " + std::to_string(capacity_) +
                                                           " holds " + std::to_string(length_) +
                                                           " tokens and cannot grow to " + std::to_string(length));
  length_ = length;
}

KvView KvSegment::view(int layer) {
  Tensor& keys = keys_.at(static_cast<size_t>(layer));
  Tensor& values = values_.at(static_cast<size_t>(layer));
  const int64_t tokens = n_kv_heads_ * capacity_;
  if (keys.empty()) {
    keys = KvPool::shared().take(in_bf16_ ? tokens * ((d_head_ + 1) / 2) : tokens * d_head_);
    values =
        KvPool::shared().take(in_bf16_ ? n_kv_heads_ * KvView::v16_tokens(capacity_) / 2 * d_head_ : tokens * d_head_);
  }
  if (!in_bf16_) return {keys.as<float>(), values.as<float>(), capacity_, begin_, length_};
  return {nullptr,
          nullptr,
          capacity_,
          begin_,
          length_,
          reinterpret_cast<uint16_t*>(keys.as<float>()),
          reinterpret_cast<uint16_t*>(values.as<float>())};
}

KvView KvSegment::view_to_store(int layer, int64_t at, int64_t n) {
  const KvView segment = view(layer);
  const int64_t end = at + n, block = end / kKvBlock;
  if (end % kKvBlock == 0 || block * kKvBlock < at) return segment;
  // Keys are read in whole blocks: the rest of one that is begun now must not hold what was there before.
  auto* keys = keys_.at(static_cast<size_t>(layer)).as<float>();
  const int64_t floats = in_bf16_ ? kKvBlock * ((d_head_ + 1) / 2) : kKvBlock * d_head_;  // odd widths are padded
  for (int64_t head = 0; head < n_kv_heads_; ++head) {
    std::fill_n(keys + (head * (capacity_ / kKvBlock) + block) * floats, floats, 0.0F);
  }
  return segment;
}

void KvSegment::release_layer(int layer) {
  if (!has_layer(layer)) return;
  KvPool::shared().give(std::exchange(keys_.at(static_cast<size_t>(layer)), Tensor()));
  KvPool::shared().give(std::exchange(values_.at(static_cast<size_t>(layer)), Tensor()));
}

bool KvSegment::has_layer(int layer) const { return !keys_.at(static_cast<size_t>(layer)).empty(); }

}  // namespace saif
