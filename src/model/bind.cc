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

bool is_norm(TensorRole role) { return role >= TensorRole::kFinalNorm && role <= TensorRole::kKNorm; }

// Rows and columns of a role's matrix; a norm has one row.
std::pair<Dimension, Dimension> dimensions(const TensorSlot& slot, const Architecture& arch) {
  const Dimension d_model{"d_model", arch.d_model}, queries{"n_heads * d_head", arch.n_heads * arch.d_head};
  const Dimension keys{"n_kv_heads * d_head", arch.n_kv_heads * arch.d_head};
  const Dimension d_mlp = slot.expert < 0 ? Dimension{"d_mlp", arch.d_mlp} : Dimension{"d_expert", arch.d_expert};
  switch (slot.role) {
    case TensorRole::kEmbedding:
    case TensorRole::kUnembedding:
      return {{"vocab", arch.vocab}, d_model};
    case TensorRole::kPositions:
      return {{"context", arch.context}, d_model};
    case TensorRole::kQ:
      return {queries, d_model};
    case TensorRole::kK:
    case TensorRole::kV:
      return {keys, d_model};
    case TensorRole::kO:
      return {d_model, queries};
    case TensorRole::kGate:
    case TensorRole::kUp:
      return {d_mlp, d_model};
    case TensorRole::kDown:
      return {d_model, d_mlp};
    case TensorRole::kRouter:
      return {{"n_experts", arch.n_experts}, d_model};
    default:
      return {{"", 1}, slot.length > 0 ? Dimension{"the norm's width", slot.length} : d_model};
  }
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

int64_t source_row(const RowSelection& rows, int64_t r) {
  return rows.first + (rows.block > 0 ? r / rows.block * rows.stride + r % rows.block : r);
}

template <typename T>
void transpose(const T* from, T* to, int64_t rows, int64_t cols) {  // from [rows, cols] to [cols, rows]
  parallel_for(cols, 16, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      for (int64_t r = 0; r < rows; ++r) to[c * rows + r] = from[r * cols + c];
    }
  });
}

void copy_bytes(const void* from, void* to, size_t bytes) {
  parallel_for(static_cast<int64_t>(bytes), 1 << 22, [&](int64_t begin, int64_t end) {
    std::memcpy(static_cast<std::byte*>(to) + begin, static_cast<const std::byte*>(from) + begin,
                static_cast<size_t>(end - begin));
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
      if (!it->copy_of.empty()) check_copy(tensor, it->copy_of);
      auto& [count, reason] = ignored[it->suffix];
      ++count;
      reason = it->reason;
    }
    if (!unknown.empty()) {
      const bool bias = unknown.ends_with(".bias");
      throw Error(Errc::kUnsupported, "tensors that this family has no place for: " + unknown.substr(0, 400) +
                                          (bias ? " (the config announces no such bias)" : "") +
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
  // Transformers 4 passes over the unembedding of a model that is said to be tied, 5 computes with it if it differs.
  void check_copy(const SourceTensor& tensor, const std::string& of) const {
    const SourceTensor* other = source_.find(of);
    if (other == nullptr) return;
    if (tensor.shape == other->shape && tensor.type == other->type) {
      const GgmlTypeInfo& info = info_of(tensor.type);
      const auto bytes = static_cast<size_t>(tensor.elements() / info.block) * info.block_bytes;
      if (std::memcmp(tensor.data, other->data, bytes) == 0) return;
    }
    throw Error(Errc::kMismatch, "tie_word_embeddings is true, but " + tensor.name + " differs from " + of +
                                     ": set tie_word_embeddings to false to use " + tensor.name +
                                     ", or remove that tensor");
  }

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
    const auto [rows, cols] = dimensions(slot, plan_.arch);
    if (is_norm(slot.role)) {
      NormWeights& norm = norm_of(slot);
      bind_norm(tensor, slot, cols, slot.bias ? norm.bias : norm.weight);
    } else if (slot.bias) {
      bind_bias(tensor, slot, rows);
    } else {
      view_of(slot) = matrix(tensor, slot, rows, cols);
      if (slot.paired_rows) linear_of(slot).paired = true;
      if (options_.resident) source_.forget_pages();
    }
  }

  // Norms of the heads may be stored one by one: the slot of head h fills its part.
  void bind_norm(const SourceTensor& tensor, const TensorSlot& slot, const Dimension& width, std::vector<float>& to) {
    if (slot.rows.all()) {
      to = read_vector(tensor, width.size, width.name);
      return;
    }
    const std::vector<float> part = read_vector(tensor, width.size, width.name);
    to.resize(static_cast<size_t>(slot.rows.total));
    std::ranges::copy(part, to.begin() + slot.rows.first);
  }

  void bind_bias(const SourceTensor& tensor, const TensorSlot& slot, const Dimension& rows) {
    const int64_t stored = slot.rows.all() ? rows.size : slot.rows.total;
    const std::vector<float> all = read_vector(tensor, stored, slot.rows.all() ? rows.name : "stacked rows");
    std::vector<float> bias(static_cast<size_t>(rows.size));
    for (int64_t r = 0; r < rows.size; ++r) {
      bias[static_cast<size_t>(r)] = all[static_cast<size_t>(source_row(slot.rows, r))];
    }
    (slot.role == TensorRole::kUnembedding ? weights_.unembedding_bias : linear_of(slot).bias) = std::move(bias);
  }

  void check_shape(const SourceTensor& tensor, const TensorSlot& slot, const Dimension& rows, const Dimension& cols) {
    const Dimension stored_rows = slot.rows.all() ? rows : Dimension{"stacked rows", slot.rows.total};
    const auto& [first, second] = slot.transposed ? std::pair(cols, stored_rows) : std::pair(stored_rows, cols);
    if (tensor.shape == std::vector<int64_t>{first.size, second.size}) return;
    const std::string found = TensorView{DType::kF32, tensor.shape, nullptr}.shape_text();
    throw Error(Errc::kMismatch, tensor.name + ": found " + found + ", expected [" + first.name + " " +
                                     std::to_string(first.size) + ", " + second.name + " " +
                                     std::to_string(second.size) + "]");
  }

  // Whether the stored matrix can be used where it lies.
  static bool lies_as(const SourceTensor& tensor, DType dtype) {
    return plain_dtype(tensor.type) == dtype && reinterpret_cast<uintptr_t>(tensor.data) % size_of(dtype) == 0;
  }

  void convert(const SourceTensor& tensor, DType dtype, void* to) {
    if (plain_dtype(tensor.type) == dtype) {
      return copy_bytes(tensor.data, to, static_cast<size_t>(tensor.elements()) * size_of(dtype));
    }
    ++conversions_[std::string(name_of(tensor.type)) + " read as " + name_of(dtype)];
    if (dtype == DType::kF32) {
      dequantize(tensor.type, tensor.data, tensor.elements(), static_cast<float*>(to));
    } else {
      dequantize_bf16(tensor.type, tensor.data, tensor.elements(), static_cast<uint16_t*>(to));
    }
  }

  // The slot's rows of a matrix, in one piece.
  std::byte* selected(const void* matrix, const TensorSlot& slot, int64_t rows, size_t row_bytes) {
    std::byte* to = weights_.memory.take(static_cast<size_t>(rows) * row_bytes);
    const auto* from = static_cast<const std::byte*>(matrix);
    if (slot.rows.block == 0) {
      copy_bytes(from + slot.rows.first * row_bytes, to, static_cast<size_t>(rows) * row_bytes);
    } else {
      for (int64_t r = 0; r < rows; ++r) {
        std::memcpy(to + r * row_bytes, from + source_row(slot.rows, r) * row_bytes, row_bytes);
      }
    }
    return to;
  }

  // The matrix as blocks of its type.
  WeightView kept_blocks(const SourceTensor& tensor, const TensorSlot& slot, const Dimension& rows,
                         const Dimension& cols, DType dtype) {
    WeightView view{tensor.data, dtype, rows.size, cols.size, tensor.type};
    const auto row_bytes = static_cast<size_t>(view.row_bytes());
    ++conversions_[std::string(name_of(tensor.type)) + " used as it lies"];
    if (slot.rows.block == 0 && !options_.resident) {
      view.data = static_cast<const std::byte*>(tensor.data) + slot.rows.first * row_bytes;
    } else {
      view.data = selected(tensor.data, slot, rows.size, row_bytes);
    }
    return view;
  }

  // One expert's matrix of [n_experts, rows, cols].
  static SourceTensor part_of_expert(const SourceTensor& tensor, int expert) {
    const GgmlTypeInfo& info = info_of(tensor.type);
    SourceTensor part = tensor;
    part.shape.erase(part.shape.begin());
    if (part.shape[1] % info.block != 0) {
      throw Error(Errc::kBadFormat, tensor.name + ": rows of " + std::to_string(part.shape[1]) + " in blocks of " +
                                        std::to_string(info.block));
    }
    const size_t bytes = static_cast<size_t>(part.elements() / info.block) * info.block_bytes;
    part.data = static_cast<const char*>(tensor.data) + static_cast<size_t>(expert) * bytes;
    return part;
  }

  WeightView matrix(const SourceTensor& tensor, const TensorSlot& slot, const Dimension& rows, const Dimension& cols) {
    check_readable(tensor);
    if (slot.expert >= 0 && tensor.shape.size() == 3 && tensor.shape[0] == plan_.arch.n_experts) {
      return matrix(part_of_expert(tensor, slot.expert), slot, rows, cols);
    }
    check_shape(tensor, slot, rows, cols);
    DType dtype = DType::kBf16;
    if (options_.compute == Compute::kF32) dtype = plain_dtype(tensor.type).value_or(options_.quantised);
    const bool blocks = !plain_dtype(tensor.type);
    if (blocks && options_.keep_blocks && !slot.transposed && cols.size % info_of(tensor.type).block == 0) {
      return kept_blocks(tensor, slot, rows, cols, dtype);
    }
    const bool stays = lies_as(tensor, dtype) && !slot.transposed;
    const size_t row_bytes = static_cast<size_t>(cols.size) * size_of(dtype);
    if (stays && slot.rows.block == 0 && !options_.resident) {
      return {static_cast<const std::byte*>(tensor.data) + slot.rows.first * row_bytes, dtype, rows.size, cols.size};
    }
    if (stays) return {selected(tensor.data, slot, rows.size, row_bytes), dtype, rows.size, cols.size};
    if (slot.rows.all() && !slot.transposed) {
      std::byte* to = weights_.memory.take(static_cast<size_t>(rows.size) * row_bytes);
      convert(tensor, dtype, to);
      return {to, dtype, rows.size, cols.size};
    }
    Tensor whole(dtype, tensor.shape);
    convert(tensor, dtype, whole.data());
    if (slot.transposed) {
      const Tensor stored = std::exchange(whole, Tensor(dtype, {tensor.shape[1], tensor.shape[0]}));
      if (dtype == DType::kF32) {
        transpose(stored.as<const float>(), whole.as<float>(), tensor.shape[0], tensor.shape[1]);
      } else {
        transpose(stored.as<const uint16_t>(), whole.as<uint16_t>(), tensor.shape[0], tensor.shape[1]);
      }
    }
    return {selected(whole.data(), slot, rows.size, row_bytes), dtype, rows.size, cols.size};
  }

  LinearWeights& linear_of(const TensorSlot& slot) {
    BlockWeights& block = weights_.blocks[static_cast<size_t>(slot.layer)];
    if (slot.expert >= 0) block.experts.resize(static_cast<size_t>(plan_.arch.n_experts));
    MlpWeights& mlp = slot.expert < 0 ? block.mlp : block.experts[static_cast<size_t>(slot.expert)];
    switch (slot.role) {
      case TensorRole::kQ:
        return block.q;
      case TensorRole::kK:
        return block.k;
      case TensorRole::kV:
        return block.v;
      case TensorRole::kO:
        return block.o;
      case TensorRole::kGate:
        return mlp.gate;
      case TensorRole::kUp:
        return mlp.up;
      case TensorRole::kRouter:
        return block.router;
      default:
        return mlp.down;
    }
  }

  WeightView& view_of(const TensorSlot& slot) {
    if (slot.role == TensorRole::kEmbedding) return weights_.embedding;
    if (slot.role == TensorRole::kPositions) return weights_.positions;
    if (slot.role == TensorRole::kUnembedding) return weights_.unembedding;
    return linear_of(slot).w;
  }

  NormWeights& norm_of(const TensorSlot& slot) {
    if (slot.role == TensorRole::kFinalNorm) return weights_.final_norm;
    BlockWeights& block = weights_.blocks[static_cast<size_t>(slot.layer)];
    switch (slot.role) {
      case TensorRole::kLn1:
        return block.ln1;
      case TensorRole::kLn2:
        return block.ln2;
      case TensorRole::kPostAttn:
        return block.post_attn;
      case TensorRole::kPostMlp:
        return block.post_mlp;
      case TensorRole::kQNorm:
        return block.q_norm;
      default:
        return block.k_norm;
    }
  }

  const ModelPlan& plan_;
  const TensorSource& source_;
  const BindOptions& options_;
  ModelWeights weights_;
  std::set<std::string> bound_;
  std::map<std::string, int> conversions_;
};

}  // namespace

std::byte* WeightMemory::take(size_t bytes) {
  bytes = (bytes + 63) / 64 * 64;
  if (bytes > left_) {
    const size_t piece = std::max(bytes, std::min<size_t>(64 << 20, (1 << 20) << std::min<size_t>(pieces_.size(), 6)));
    pieces_.emplace_back(DType::kI8, std::vector{static_cast<int64_t>(piece)});
    next_ = pieces_.back().as<std::byte>();
    left_ = piece;
  }
  ++matrices_;
  bytes_ += bytes;
  left_ -= bytes;
  return std::exchange(next_, next_ + bytes);
}

ModelWeights bind_weights(const ModelPlan& plan, const TensorSource& source, const BindOptions& options,
                          std::vector<std::string>& notes) {
  Binder binder(plan, source, options);
  ModelWeights weights = binder.bind();
  binder.account_for_all(notes);
  return weights;
}

}  // namespace saif
