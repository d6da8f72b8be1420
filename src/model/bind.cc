#include "model/bind.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "base/parallel.h"

namespace saif {
namespace {

struct Dimension {
  std::string name;
  int64_t size;
};

bool is_bias(TensorRole role) { return role >= TensorRole::kQBias; }
bool is_norm(TensorRole role) {
  return role == TensorRole::kFinalNorm || role == TensorRole::kLn1 || role == TensorRole::kLn2;
}

// Rows and columns of a matrix; of a bias the rows' dimension is its length; of a norm the columns'.
std::pair<Dimension, Dimension> dimensions(TensorRole role, const Architecture& arch) {
  const Dimension d_model{"d_model", arch.d_model}, d_mlp{"d_mlp", arch.d_mlp}, vocab{"vocab", arch.vocab};
  const Dimension queries{"n_heads * d_head", arch.n_heads * arch.d_head};
  const Dimension keys{"n_kv_heads * d_head", arch.n_kv_heads * arch.d_head};
  switch (role) {
    case TensorRole::kEmbedding:
    case TensorRole::kUnembedding:
      return {vocab, d_model};
    case TensorRole::kFinalNorm:
    case TensorRole::kLn1:
    case TensorRole::kLn2:
      return {{"", 1}, d_model};
    case TensorRole::kQ:
    case TensorRole::kQBias:
      return {queries, d_model};
    case TensorRole::kK:
    case TensorRole::kKBias:
    case TensorRole::kV:
    case TensorRole::kVBias:
      return {keys, d_model};
    case TensorRole::kO:
    case TensorRole::kOBias:
      return {d_model, queries};
    case TensorRole::kGate:
    case TensorRole::kGateBias:
    case TensorRole::kUp:
    case TensorRole::kUpBias:
      return {d_mlp, d_model};
    case TensorRole::kDown:
    case TensorRole::kDownBias:
      return {d_model, d_mlp};
  }
  return {};
}

std::optional<DType> plain_dtype(GgmlType type) {
  switch (type) {
    case GgmlType::kF32:
      return DType::kF32;
    case GgmlType::kF16:
      return DType::kF16;
    case GgmlType::kBf16:
      return DType::kBf16;
    default:
      return std::nullopt;
  }
}

// For each head, row 2i + p goes to p * d_head / 2 + i: back from the order of neighbouring pairs to that of halves.
void undo_paired_rows(const char* from, char* to, int64_t rows, int64_t d_head, size_t row_bytes) {
  parallel_for(rows / d_head, 1, [&](int64_t begin, int64_t end) {
    for (int64_t head = begin; head < end; ++head) {
      for (int64_t i = 0; i < d_head; ++i) {
        const int64_t target = head * d_head + (i % 2) * (d_head / 2) + i / 2;
        std::memcpy(to + target * row_bytes, from + (head * d_head + i) * row_bytes, row_bytes);
      }
    }
  });
}

class Binder {
 public:
  Binder(const ModelPlan& plan, const TensorSource& source, const BindOptions& options)
      : plan_(plan), source_(source), options_(options) {}

  ModelWeights bind() {
    weights_.blocks.resize(static_cast<size_t>(plan_.arch.n_layers));
    for (const TensorSlot& slot : plan_.tensors) bind_slot(slot);
    if (plan_.arch.tied_embeddings) weights_.unembedding = weights_.embedding;
    return std::move(weights_);
  }

  void account_for_all(std::vector<std::string>& notes) const {
    std::map<std::string, std::pair<int, std::string>> ignored;  // by suffix: count, reason
    std::string unknown;
    for (const SourceTensor& tensor : source_.tensors()) {
      if (bound_.contains(tensor.name)) continue;
      const auto it = std::ranges::find_if(
          plan_.ignored, [&](const IgnoredTensors& rule) { return tensor.name.ends_with(rule.suffix); });
      if (it == plan_.ignored.end()) {
        unknown += (unknown.empty() ? "" : ", ") + tensor.name;
        continue;
      }
      auto& [count, reason] = ignored[it->suffix];
      ++count;
      reason = it->reason;
    }
    if (!unknown.empty()) {
      throw Error(Errc::kUnsupported, "tensors that this family has no place for: " + unknown.substr(0, 400) +
                                          "; the model would not be computed as it was meant");
    }
    for (const auto& [suffix, what] : ignored) {
      notes.push_back("ignored " + std::to_string(what.first) + " tensor(s) " + suffix + ": " + what.second);
    }
    for (const auto& [change, count] : conversions_) {
      notes.push_back(change + ": " + std::to_string(count) + (count == 1 ? " matrix" : " matrices"));
    }
  }

 private:
  const SourceTensor& find(const TensorSlot& slot) {
    const SourceTensor* tensor = source_.find(slot.name);
    if (tensor == nullptr) {
      throw Error(Errc::kNotFound, "tensor " + slot.name + " is missing; the config announces " +
                                       std::to_string(plan_.arch.n_layers) + " blocks of family " + plan_.arch.family);
    }
    bound_.insert(tensor->name);
    return *tensor;
  }

  void bind_slot(const TensorSlot& slot) {
    const SourceTensor& tensor = find(slot);
    const auto [rows, cols] = dimensions(slot.role, plan_.arch);
    if (is_norm(slot.role)) {
      vector_of(slot) = read_vector(tensor, cols.size, cols.name);
    } else if (is_bias(slot.role)) {
      std::vector<float> bias = read_vector(tensor, rows.size, rows.name);
      std::vector<float>& to = vector_of(slot);
      to = bias;
      if (slot.paired_rows) {
        undo_paired_rows(reinterpret_cast<const char*>(bias.data()), reinterpret_cast<char*>(to.data()), rows.size,
                         plan_.arch.d_head, sizeof(float));
      }
    } else {
      view_of(slot) = matrix(tensor, slot, rows, cols);
    }
  }

  WeightView matrix(const SourceTensor& tensor, const TensorSlot& slot, const Dimension& rows, const Dimension& cols) {
    if (tensor.shape != std::vector<int64_t>{rows.size, cols.size}) {
      const std::string found = TensorView{DType::kF32, tensor.shape, nullptr}.shape_text();
      throw Error(Errc::kMismatch, tensor.name + ": found " + found + ", expected [" + rows.name + " " +
                                       std::to_string(rows.size) + ", " + cols.name + " " + std::to_string(cols.size) +
                                       "]");
    }
    check_readable(tensor);
    const std::optional<DType> plain = plain_dtype(tensor.type);
    DType dtype = DType::kBf16;
    if (options_.compute == Compute::kF32) dtype = plain.value_or(options_.quantised);
    const bool aligned = reinterpret_cast<uintptr_t>(tensor.data) % size_of(dtype) == 0;
    if (plain == dtype && aligned && !slot.paired_rows) return {tensor.data, dtype, rows.size, cols.size};

    Tensor copy(dtype, tensor.shape);
    if (plain == dtype) {
      if (!slot.paired_rows) std::memcpy(copy.data(), tensor.data, copy.bytes());
    } else {
      ++conversions_[std::string(name_of(tensor.type)) + " read as " + name_of(dtype)];
      if (dtype == DType::kF32) {
        dequantize(tensor.type, tensor.data, tensor.elements(), copy.as<float>());
      } else {
        dequantize_bf16(tensor.type, tensor.data, tensor.elements(), copy.as<uint16_t>());
      }
    }
    if (slot.paired_rows) {
      const Tensor paired = plain == dtype ? Tensor() : std::exchange(copy, Tensor(dtype, tensor.shape));
      const void* from = plain == dtype ? tensor.data : paired.data();
      undo_paired_rows(static_cast<const char*>(from), copy.as<char>(), rows.size, plan_.arch.d_head,
                       static_cast<size_t>(cols.size) * size_of(dtype));
    }
    weights_.copies.push_back(std::move(copy));
    return {weights_.copies.back().data(), dtype, rows.size, cols.size};
  }

  LinearWeights& linear_of(const TensorSlot& slot) {
    BlockWeights& block = weights_.blocks[static_cast<size_t>(slot.layer)];
    switch (slot.role) {
      case TensorRole::kQ:
      case TensorRole::kQBias:
        return block.q;
      case TensorRole::kK:
      case TensorRole::kKBias:
        return block.k;
      case TensorRole::kV:
      case TensorRole::kVBias:
        return block.v;
      case TensorRole::kO:
      case TensorRole::kOBias:
        return block.o;
      case TensorRole::kGate:
      case TensorRole::kGateBias:
        return block.gate;
      case TensorRole::kUp:
      case TensorRole::kUpBias:
        return block.up;
      default:
        return block.down;
    }
  }

  WeightView& view_of(const TensorSlot& slot) {
    if (slot.role == TensorRole::kEmbedding) return weights_.embedding;
    if (slot.role == TensorRole::kUnembedding) return weights_.unembedding;
    return linear_of(slot).w;
  }

  std::vector<float>& vector_of(const TensorSlot& slot) {
    if (slot.role == TensorRole::kFinalNorm) return weights_.final_norm;
    if (slot.role == TensorRole::kLn1) return weights_.blocks[static_cast<size_t>(slot.layer)].ln1;
    if (slot.role == TensorRole::kLn2) return weights_.blocks[static_cast<size_t>(slot.layer)].ln2;
    return linear_of(slot).bias;
  }

  const ModelPlan& plan_;
  const TensorSource& source_;
  const BindOptions& options_;
  ModelWeights weights_;
  std::set<std::string> bound_;
  std::map<std::string, int> conversions_;
};

}  // namespace

ModelWeights bind_weights(const ModelPlan& plan, const TensorSource& source, const BindOptions& options,
                          std::vector<std::string>& notes) {
  Binder binder(plan, source, options);
  ModelWeights weights = binder.bind();
  binder.account_for_all(notes);
  return weights;
}

}  // namespace saif
