#include "base/check.h"
#include "model/forward.h"

namespace saif {

KvSegment::KvSegment(const Architecture& arch, int64_t begin, int64_t capacity)
    : begin_(begin),
      capacity_((capacity + kKvBlock - 1) / kKvBlock * kKvBlock),
      n_kv_heads_(arch.n_kv_heads),
      d_head_(arch.d_head),
      keys_(static_cast<size_t>(arch.n_layers)),
      values_(static_cast<size_t>(arch.n_layers)) {
  SAIF_CHECK(begin >= 0 && capacity >= 0, "KV segment with a negative begin or capacity");
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
  if (keys.empty()) {
    // Zeros: a block of 16 keys is read whole, also where its last tokens are not stored yet.
    keys = Tensor::zeros(DType::kF32, {n_kv_heads_, capacity_ / kKvBlock, d_head_, kKvBlock});
    values = Tensor::zeros(DType::kF32, {n_kv_heads_, capacity_, d_head_});
  }
  return {keys.as<float>(), values.as<float>(), capacity_, begin_, length_};
}

void KvSegment::release_layer(int layer) {
  keys_.at(static_cast<size_t>(layer)) = Tensor();
  values_.at(static_cast<size_t>(layer)) = Tensor();
}

bool KvSegment::has_layer(int layer) const { return !keys_.at(static_cast<size_t>(layer)).empty(); }

}  // namespace saif
