// The one implementation of Model: what the forward pass needs beyond the public face.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "model/tensor_source.h"
#include "model/weights.h"
#include "saif/model.h"

namespace saif {

using BackendFactory = std::function<std::unique_ptr<Backend>()>;

// y = the architecture's norm of rows x; y may be x.
void norm_rows(Backend& backend, const Architecture& arch, const NormWeights& w, Mat<const float> x, Mat<float> y);

class LoadedModel final : public Model {
 public:
  struct Parts {
    Architecture arch;
    std::string path, name, dtype;
    std::vector<std::string> files;  // that hold the weights
    std::vector<std::string> notes;
    std::optional<TensorSource> source;  // keeps the mappings of `weights`
    ModelWeights weights;
    Compute compute = Compute::kF32;
    BackendFactory backend;
  };
  explicit LoadedModel(Parts parts);

  const Architecture& architecture() const override { return parts_.arch; }
  const std::string& path() const override { return parts_.path; }
  const std::string& name() const override { return parts_.name; }
  const std::string& dtype() const override { return parts_.dtype; }
  const std::string& sha256() const override;
  std::vector<std::string> notes() const override { return parts_.notes; }
  bool in_own_memory() const override;
  double bytes_per_weight() const override;
  void unembed(Mat<const float> x, bool apply_norm, Mat<float> out) const override;
  std::vector<float> embedding_row(int32_t id) const override;

  const ModelWeights& weights() const { return parts_.weights; }
  Compute compute() const { return parts_.compute; }
  std::unique_ptr<Backend> make_backend() const { return parts_.backend(); }

 private:
  std::pair<double, double> bytes_and_weights() const;  // of the blocks' and the unembedding's matrices

  const Parts parts_;
  mutable std::mutex mutex_;  // of what follows
  mutable std::unique_ptr<Backend> backend_;
  mutable std::string sha256_;
};

// Model::load with another backend than the fast one.
std::shared_ptr<const LoadedModel> load_model(const std::string& path_or_name, const LoadOptions& options,
                                              const BackendFactory& backend);

}  // namespace saif
