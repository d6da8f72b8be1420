#include "model/loaded_model.h"

#include <filesystem>

#include "base/check.h"
#include "base/hash.h"

namespace saif {

LoadedModel::LoadedModel(Parts parts) : parts_(std::move(parts)) {}

const std::string& LoadedModel::sha256() const {
  const std::lock_guard lock(mutex_);
  if (!sha256_.empty()) return sha256_;
  if (parts_.files.size() == 1) {
    sha256_ = file_sha256(parts_.files[0]);
  } else {  // of the shards' names and hashes
    std::string all;
    for (const std::string& file : parts_.files) {
      all += std::filesystem::path(file).filename().string() + " " + file_sha256(file) + "\n";
    }
    sha256_ = sha256_hex(all);
  }
  return sha256_;
}

void LoadedModel::unembed(Mat<const float> x, bool apply_norm, Mat<float> out) const {
  const Architecture& arch = parts_.arch;
  SAIF_CHECK(x.cols() == arch.d_model && out.cols() == arch.vocab && x.rows() == out.rows(), "unembed: shapes");
  if (x.rows() == 0) return;
  const std::lock_guard lock(mutex_);
  if (!backend_) backend_ = make_backend();
  Tensor normed;
  if (apply_norm) {
    normed = Tensor(DType::kF32, {x.rows(), x.cols()});
    norm_rows(*backend_, arch, parts_.weights.final_norm, x, normed.f32());
    x = normed.f32();
  }
  const std::vector<float>& bias = parts_.weights.unembedding_bias;
  const LinearPart part{parts_.weights.unembedding, bias.empty() ? nullptr : bias.data(), out, false};
  backend_->linear(x, {&part, 1}, parts_.compute);
  for (int64_t r = 0; arch.logit_scale != 1.0F && r < out.rows(); ++r) {
    for (float& v : out.row_span(r)) v *= arch.logit_scale;
  }
  if (arch.logit_softcap > 0) backend_->softcap(arch.logit_softcap, out);
}

std::pair<double, double> LoadedModel::bytes_and_weights() const {
  double bytes = 0, weights = 0;
  const auto add = [&](const WeightView& w) {
    bytes += static_cast<double>(w.out * w.row_bytes());
    weights += static_cast<double>(w.out * w.in);
  };
  const auto add_mlp = [&](const MlpWeights& mlp) {
    for (const LinearWeights* l : {&mlp.gate, &mlp.up, &mlp.down}) {
      if (l->w.data != nullptr) add(l->w);
    }
  };
  for (const BlockWeights& block : parts_.weights.blocks) {
    for (const LinearWeights* l : {&block.q, &block.k, &block.v, &block.o}) add(l->w);
    add_mlp(block.mlp);
    for (const MlpWeights& expert : block.experts) add_mlp(expert);
  }
  add(parts_.weights.unembedding);
  return {bytes, weights};
}

double LoadedModel::bytes_per_weight() const {
  const auto [bytes, weights] = bytes_and_weights();
  return bytes / weights;
}

bool LoadedModel::in_own_memory() const {
  return 2 * static_cast<double>(parts_.weights.memory.bytes()) > bytes_and_weights().first;
}

std::vector<float> LoadedModel::embedding_row(int32_t id) const {
  if (id < 0 || id >= parts_.arch.vocab) {
    throw Error(Errc::kInvalidArgument,
                "token id " + std::to_string(id) + ": expected 0 to " + std::to_string(parts_.arch.vocab - 1));
  }
  std::vector<float> row(static_cast<size_t>(parts_.arch.d_model));
  const std::lock_guard lock(mutex_);
  if (!backend_) backend_ = make_backend();
  backend_->embed(parts_.weights.embedding, {&id, 1}, parts_.arch.embed_scale,
                  Mat<float>(row.data(), 1, parts_.arch.d_model));
  return row;
}

}  // namespace saif
