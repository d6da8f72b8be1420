// Models of random weights in the shape of real ones: what speed depends on is the size of the matrices.
#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "saif/machine.h"
#include "saif/options.h"

namespace saif {
namespace {

enum class Kind { kLlama, kLlama3, kQwen3, kGemma2 };  // kLlama3: with its rope scaling

struct Shape {
  const char* name;
  Kind kind;
  int64_t d_model, d_mlp, layers, heads, kv_heads, d_head, vocab, context;
  double rope_theta;
};
// From the published config.json of each.
constexpr Shape kShapes[] = {
    {"smollm2-135m", Kind::kLlama, 576, 1536, 30, 9, 3, 64, 49152, 8192, 100000.0},
    {"smollm2-360m", Kind::kLlama, 960, 2560, 32, 15, 5, 64, 49152, 8192, 100000.0},
    {"qwen3-0.6b", Kind::kQwen3, 1024, 3072, 28, 16, 8, 128, 151936, 40960, 1000000.0},
    {"llama-3.2-1b", Kind::kLlama3, 2048, 8192, 16, 32, 8, 64, 128256, 131072, 500000.0},
    {"gemma-2-2b", Kind::kGemma2, 2304, 9216, 26, 8, 4, 256, 256000, 8192, 10000.0},
};

const Shape& find_shape(const std::string& name) {
  for (const Shape& shape : kShapes) {
    if (name == shape.name) return shape;
  }
  const std::string near = nearest_name(name, model_shapes());
  std::string known;
  for (const std::string& shape : model_shapes()) known += (known.empty() ? "" : ", ") + shape;
  throw Error(Errc::kNotFound, "shape \"" + name + "\" is unknown" +
                                   (near.empty() ? "" : ", did you mean \"" + near + "\"?") + " (known: " + known +
                                   ")");
}

Json config_of(const Shape& s) {
  const bool gemma = s.kind == Kind::kGemma2, qwen = s.kind == Kind::kQwen3;
  const char* class_name = gemma ? "Gemma2ForCausalLM" : qwen ? "Qwen3ForCausalLM" : "LlamaForCausalLM";
  Json config = Json::object({{"architectures", Json::Array{class_name}},
                              {"model_type", gemma  ? "gemma2"
                                             : qwen ? "qwen3"
                                                    : "llama"},
                              {"hidden_size", s.d_model},
                              {"intermediate_size", s.d_mlp},
                              {"num_hidden_layers", s.layers},
                              {"num_attention_heads", s.heads},
                              {"num_key_value_heads", s.kv_heads},
                              {"head_dim", s.d_head},
                              {"vocab_size", s.vocab},
                              {"max_position_embeddings", s.context},
                              {"rope_theta", s.rope_theta},
                              {"rms_norm_eps", 1e-5},
                              {gemma ? "hidden_activation" : "hidden_act", gemma ? "gelu_pytorch_tanh" : "silu"},
                              {"tie_word_embeddings", true},
                              {"torch_dtype", "bfloat16"}});
  if (gemma) {
    config["attn_logit_softcapping"] = 50.0;
    config["final_logit_softcapping"] = 30.0;
    config["query_pre_attn_scalar"] = 256;
    config["sliding_window"] = 4096;
  }
  if (s.kind == Kind::kLlama3) {
    config["rope_scaling"] = Json::object({{"rope_type", "llama3"},
                                           {"factor", 32.0},
                                           {"low_freq_factor", 1.0},
                                           {"high_freq_factor", 4.0},
                                           {"original_max_position_embeddings", 8192}});
  }
  return config;
}

// Normal numbers of deviation 0.02, as at the start of training; a stretch of 2^20 of them comes again and again.
Tensor random_block(int64_t elements) {
  constexpr int64_t kPeriod = int64_t{1} << 20;
  Tensor block(DType::kBf16, {elements});
  uint16_t* data = block.as<uint16_t>();
  Rng rng(6);
  const int64_t fresh = std::min(elements, kPeriod);
  for (int64_t i = 0; i < fresh; ++i) data[i] = f32_to_bf16(static_cast<float>(0.02 * rng.normal()));
  for (int64_t i = fresh; i < elements; i += fresh) std::copy_n(data, std::min(fresh, elements - i), data + i);
  return block;
}

// Every tensor is a view of the same block, at a place of its own.
class TensorList {
 public:
  explicit TensorList(const Shape& shape)
      : shape_(shape),
        block_(random_block(std::max(shape.vocab, shape.d_mlp) * shape.d_model + kPlaces)),
        ones_(DType::kBf16, {shape.d_model}) {
    std::fill_n(ones_.as<uint16_t>(), shape.d_model, f32_to_bf16(1.0F));
    matrix("model.embed_tokens", shape.vocab, shape.d_model);
    norm("model.norm");
    for (int64_t layer = 0; layer < shape.layers; ++layer) add_layer("model.layers." + std::to_string(layer) + ".");
  }
  const std::vector<NamedTensor>& tensors() const { return tensors_; }

 private:
  static constexpr int64_t kPlaces = 4096;

  void add_layer(const std::string& prefix) {
    const int64_t d = shape_.d_model, q = shape_.heads * shape_.d_head, kv = shape_.kv_heads * shape_.d_head;
    norm(prefix + "input_layernorm");
    norm(prefix + "post_attention_layernorm");
    if (shape_.kind == Kind::kGemma2) {
      norm(prefix + "pre_feedforward_layernorm");
      norm(prefix + "post_feedforward_layernorm");
    }
    if (shape_.kind == Kind::kQwen3) {
      for (const char* name : {"self_attn.q_norm", "self_attn.k_norm"}) {
        tensors_.push_back({prefix + name + ".weight", {DType::kBf16, {shape_.d_head}, ones_.data()}});
      }
    }
    matrix(prefix + "self_attn.q_proj", q, d);
    matrix(prefix + "self_attn.k_proj", kv, d);
    matrix(prefix + "self_attn.v_proj", kv, d);
    matrix(prefix + "self_attn.o_proj", d, q);
    matrix(prefix + "mlp.gate_proj", shape_.d_mlp, d);
    matrix(prefix + "mlp.up_proj", shape_.d_mlp, d);
    matrix(prefix + "mlp.down_proj", d, shape_.d_mlp);
  }
  void matrix(const std::string& name, int64_t out, int64_t in) {
    const int64_t place = static_cast<int64_t>(tensors_.size()) * 37 % kPlaces;
    tensors_.push_back({name + ".weight", {DType::kBf16, {out, in}, block_.as<uint16_t>() + place}});
  }
  void norm(const std::string& name) { tensors_.push_back({name + ".weight", ones_.view()}); }

  const Shape& shape_;
  Tensor block_, ones_;
  std::vector<NamedTensor> tensors_;
};

}  // namespace

std::vector<std::string> model_shapes() {
  std::vector<std::string> names;
  for (const Shape& shape : kShapes) names.emplace_back(shape.name);
  return names;
}

void make_random_model(const std::string& folder, const std::string& shape_name) {
  const Shape& shape = find_shape(shape_name);
  write_json_file(folder + "/config.json", config_of(shape));
  const TensorList list(shape);
  write_tensor_file(folder + "/model.safetensors", list.tensors(), {{"format", "pt"}});
}

}  // namespace saif
