// Sparse autoencoders: load, check, encode, decode, save.
//
// In memory an SAE is canonical, whatever file it came from:
//   a = act(((x - b_dec if apply_b_dec_to_input) W_enc + b_enc)),   x^ = a W_dec + b_dec (+ W_skip x)
// A transcoder reads x at one site and reconstructs what stands at another one. docs/sae_formats.md lists the formats.
// Immutable after load; thread-safe except that encode/decode run their own parallel loops.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "saif/control.h"
#include "saif/engine.h"
#include "saif/json.h"
#include "saif/tensor.h"

namespace saif {

enum class SaeKind {
  kStandard,         // relu(h)
  kTopK,             // the k largest, then relu
  kJumpRelu,         // relu(h) * [h > threshold]
  kGated,            // [x W_enc + b_gate > 0] * relu(x W_enc exp(r_mag) + b_mag)
  kAbsTopK,          // the k largest by magnitude, with their signs
  kGroupMax,         // k groups of d_sae / k neighbours; the largest of each, then relu
  kMatchingPursuit,  // greedy on the decoder rows: the row that fits best is taken off, again and again; no encoder
};
const char* name_of(SaeKind kind);  // "standard", "topk", ...

struct SaeConfig {
  SaeKind kind = SaeKind::kTopK;
  int64_t d_in = 0, d_sae = 0, d_out = 0;
  int64_t k = 0;               // kTopK, kAbsTopK, kGroupMax
  bool keep_negative = false;  // kTopK without the relu: with fewer than k positive ones, negative latents are kept
  bool rank_by_decoder_norm = false;  // kTopK: the k latents are those of largest h |decoder row|; they keep h
  bool apply_b_dec_to_input = true;
  bool rescale_acts_by_decoder_norm = false;  // SAELens' topk option: latents are multiplied by their decoder norm
  std::string normalize = "none";             // SAELens' normalize_activations
  bool undo_normalization = true;             // the reconstruction goes back to x's scale; transcoders leave it out
  bool transcoder = false;                    // reconstructs site_out, not its input
  bool skip = false;                          // + W_skip x, of the raw x
  bool glu = false;                           // h is multiplied by sigmoid(x W_glu + b_glu)
  int64_t max_iterations = 0;                 // kMatchingPursuit: latents taken at most
  double residual_threshold = 0;              // kMatchingPursuit: done when |residual| is below; 0: never
  bool stop_on_duplicate_support = true;      // kMatchingPursuit: done when a step adds no new latent
  std::string site;                           // "blocks.24.hook_resid_post"; "" when the file does not say
  std::string site_out;                       // what a transcoder reconstructs; "" when the file does not say
  std::string model;                          // "" when the file does not say
  std::string format;                         // "sae_lens"
  std::optional<double> published_l0;         // what its authors measured, where the file or path says so
  std::optional<double> published_fvu;
  Json metadata = Json::object();  // everything else the file says
  Json to_json() const;
};

// CSR: row r's active latents are entries [row_offsets[r], row_offsets[r + 1]), in ascending order of index.
struct SparseLatents {
  std::vector<int64_t> row_offsets{0};
  std::vector<int32_t> indices;
  std::vector<float> values;
  int64_t rows() const { return static_cast<int64_t>(row_offsets.size()) - 1; }
  double mean_l0() const;
};

struct SaeWeights {               // float32, canonical
  Tensor w_enc;                   // [d_sae, d_in] (transposed: a latent's encoder is a row)
  Tensor b_enc;                   // [d_sae]
  Tensor w_dec;                   // [d_sae, d_out]
  Tensor b_dec;                   // [d_out]
  Tensor threshold;               // [d_sae], kJumpRelu
  Tensor r_mag = {}, b_mag = {};  // [d_sae], kGated; b_enc is its gate's bias
  Tensor w_skip = {};             // [d_out, d_in], skip
};

struct SaeLoadOptions {
  bool verify = true;  // scan every weight for NaN and infinity at load; false: each part when it is first used
  bool fast = false;   // bfloat16 weights meet bfloat16 activations where they can; latents differ by about 1 %
  std::optional<double> norm_scaling_factor = {};  // for normalize_activations = expected_average_only_in
};

class Sae {
 public:
  // A folder or file of any format of docs/sae_formats.md. Throws Error naming what is wrong. Where the file's layout
  // allows it stays mapped, and the encoder is brought into memory by the first encode.
  static std::shared_ptr<const Sae> load(const std::string& path, const SaeLoadOptions& options = {});
  // Whether a loader knows the layout of this folder or file, by names alone.
  static bool recognises(const std::string& path);
  // kStandard, kTopK, kJumpRelu and kGated, without input normalisation; transcoders too.
  static std::shared_ptr<const Sae> from_weights(SaeConfig config, SaeWeights weights);
  virtual ~Sae() = default;

  virtual const SaeConfig& config() const = 0;
  virtual const std::string& path() const = 0;
  virtual const std::string& sha256() const = 0;
  // x [n, d_in] -> latents. Batch-invariant: a row's latents do not depend on the other rows.
  virtual SparseLatents encode(Mat<const float> x) const = 0;
  // -> [n, d_out]
  virtual Tensor decode(const SparseLatents& latents,
                        Mat<const float> x) const = 0;  // x: for what a format needs of it
  // What one unit of each latent adds to a reconstruction, before an input normalisation is undone: rows of the decoder
  // (divided by their norms with rescale_acts_by_decoder_norm), read without touching the rest: [indices, d_out]
  // float32.
  virtual Tensor decoder_rows(std::span<const int32_t> indices) const = 0;
  virtual std::vector<float> decoder_norms() const = 0;  // [d_sae]
  // An SAE of these latents alone, in this order, which have the same values there, bit for bit; null where a latent's
  // value depends on the others (top-k codes, matching pursuit). Reads those latents only.
  virtual std::shared_ptr<const Sae> subset(std::span<const int32_t> latents) const = 0;

  // Writes a SAELens 6 folder (cfg.json, sae_weights.safetensors), atomically. dtype: F32 or BF16. Throws kUnsupported
  // for arithmetic that SAELens has no architecture for.
  virtual void save(const std::string& folder, DType dtype) const = 0;
  // format: sae_lens, or sparsify (top-k and groupmax), whose folders are named as the hookpoint ("layers.7") and lie
  // in `folder`. Returns the folder to load. Throws kUnsupported for what the format cannot say.
  virtual std::string save_as(const std::string& format, const std::string& folder, DType dtype) const = 0;
};

// How well an SAE describes activations.
struct SaeFidelity {
  int64_t tokens = 0;
  double l0 = 0;                  // mean number of active latents
  double fvu = 0;                 // sum |x - x^|^2 / sum |x - mean(x)|^2
  double explained_variance = 0;  // 1 - fvu
  double dead = 0;                // share of latents that never fired
  double dense = 0;               // share of latents that fired on more than 10 % of tokens
  double decoder_norm_min = 0, decoder_norm_max = 0;
  Json to_json() const;
};
SaeFidelity measure_fidelity(const Sae& sae, Mat<const float> x);
// Of a transcoder: target [n, d_out] is what it should give for x [n, d_in].
SaeFidelity measure_fidelity(const Sae& sae, Mat<const float> x, Mat<const float> target);

// The acceptance check: measures on a few hundred tokens of built-in text (first tokens excluded) at the SAE's site and
// throws kRefused when L0 is off the published one by more than 2x or FVU > 0.5, kMismatch when widths, model or site
// do not fit. Returns what was measured.
struct AcceptanceOptions {
  bool enforce = true;  // false: measure and report only
  std::string site;     // overrides the SAE's own
};
SaeFidelity check_sae(const Sae& sae, Engine& engine, const AcceptanceOptions& options, const Control& control);

// Fidelity on held-out text, and what the reconstruction costs the model: cross-entropy clean, with the
// reconstruction spliced in at the site, and with zeros there; loss recovered = (zero - sae) / (zero - clean).
struct SaeEvaluation {
  SaeFidelity fidelity;
  double ce_clean = 0, ce_sae = 0, ce_zero = 0, loss_recovered = 0;  // nats per token
  Json to_json() const;                                              // keys of `saif sae eval --json`
};

// Where an SAE is good and where it is not: by type of token, and how often its latents fire.
struct SaeBreakdown {
  struct Bin {  // 10^low <= share of tokens on which the latent fires < 10^high
    double low = 0, high = 0;
    int64_t latents = 0;
  };
  struct Type {
    std::string name;        // first, special, chat_role, newline, space, digits, punctuation, word_start, word_part
    int64_t tokens = 0;      // whose rows were encoded
    double l0 = 0, fvu = 0;  // of these rows; their variance is about the mean of all rows but the first ones
    double error_share = 0;  // of the squared error of all rows but the first ones
    int64_t predicted = 0;   // tokens of this type that the model predicted
    double ce_clean = 0, ce_sae = 0;                   // nats per predicted token
    double ce_increase_low = 0, ce_increase_high = 0;  // 95 % of ce_sae - ce_clean; documents are the units
  };
  std::vector<Bin> density;  // half decades, from the rarest latent's to 1
  int64_t never = 0;         // latents that fired on no token
  std::vector<Type> types;   // those that occur
  Json to_json() const;      // {"density_histogram": {...}, "by_type": [...]}
};

// breakdown: filled where not null.
SaeEvaluation evaluate_sae(const Sae& sae, Engine& engine, std::span<const std::vector<int32_t>> documents,
                           const Control& control, SaeBreakdown* breakdown = nullptr);

// Training -----------------------------------------------------------------------------------------------------------

struct SaeTrainOptions {
  std::string kind = "topk";
  int64_t d_sae = 4608;
  int64_t k = 32;
  int64_t batch = 4096;    // tokens per step
  double epochs = 3.0;     // passes over the corpus
  int64_t max_tokens = 0;  // stop after so many training tokens; 0: epochs decide
  double lr = 0.0;         // 0: 2e-4 / sqrt(d_sae / 2^14)
  double warmup = 0.02;    // share of the steps
  double decay = 0.2;      // share of the steps, linearly to zero at the end
  double beta1 = 0.9, beta2 = 0.999, adam_eps = 1e-8;
  double l1_coefficient = 0.05;                               // relu, gated: see docs/sae_training.md for its unit
  double l0_coefficient = 1.0;                                // jumprelu
  std::string l0_penalty = "target";                          // jumprelu: target or linear
  double bandwidth = 0.5;                                     // jumprelu: of the straight-through rectangle
  double sparsity_warmup = 0.05;                              // share of the steps in which these coefficients grow
  std::vector<double> prefixes = {0.0625, 0.125, 0.25, 0.5};  // matryoshka: shares of the latents
  bool skip = false;                                          // transcoders: + W_skip x
  int64_t resample_every = 0;                                 // steps after which dead latents start again; 0: never
  int64_t auxiliary_k = 0;                                    // dead latents that learn the residual error; 0: d_in / 2
  double auxiliary_weight = 1.0 / 32;
  int64_t dead_after = 200000;       // tokens without firing until a latent counts as dead
  int64_t buffer = 262144;           // tokens in the shuffling buffer
  int64_t skip_first = 1;            // tokens left out at the start of every document
  int64_t checkpoint_every = 500;    // steps
  int64_t context = 256;             // tokens a document is cut to
  double held_out = 0.02;            // share of documents kept for evaluation
  std::string activations = "disk";  // disk: a cache file under the output folder; memory: nothing is written
  int64_t log_every = 10;            // steps per line of metrics.jsonl
  std::string dtype = "bf16";        // of the saved weights
  std::string compute = "auto";      // type in which the encoder product is formed: auto, bf16, f32
  int64_t seed = 0;
  template <typename V>
  void describe(V& v) {
    v("kind", kind, "relu, topk, batchtopk, jumprelu, gated, matryoshka (on batchtopk) or matryoshka-topk");
    v("d-sae", d_sae, "latents");
    v("k", k, "active latents per token: exact (topk), in the mean (batchtopk), aimed at (jumprelu), at the start / 2");
    v("batch", batch, "tokens per step");
    v("epochs", epochs, "passes over the corpus");
    v("max-tokens", max_tokens, "training tokens at most; 0: the epochs decide");
    v("lr", lr, "peak learning rate; 0: 2e-4 / sqrt(d_sae / 16384)");
    v("warmup", warmup, "share of the steps in which the learning rate grows");
    v("decay", decay, "share of the steps in which it falls to zero, at the end");
    v("beta1", beta1, "Adam");
    v("beta2", beta2, "Adam");
    v("adam-eps", adam_eps, "Adam");
    v("l1-coefficient", l1_coefficient, "relu, gated: weight of the mean sum of activations / scale of the rows");
    v("l0-coefficient", l0_coefficient, "jumprelu: weight of the penalty on L0");
    v("l0-penalty", l0_penalty, "jumprelu: target, (L0 / k - 1)^2, or linear, L0 / k");
    v("bandwidth", bandwidth, "jumprelu: width of the straight-through rectangle / scale of random pre-activations");
    v("sparsity-warmup", sparsity_warmup, "share of the steps in which l1- and l0-coefficient grow from zero");
    v("prefixes", prefixes, "matryoshka: nested prefixes as shares of the latents; the whole is added");
    v("skip", skip, "transcoders: a linear map of the input is learnt beside the latents");
    v("resample-every", resample_every, "steps after which dead latents start again at badly explained rows; 0: never");
    v("auxiliary-k", auxiliary_k, "dead latents that learn the residual error; 0: d_in / 2");
    v("auxiliary-weight", auxiliary_weight, "weight of that loss; 0: none");
    v("dead-after", dead_after, "tokens without firing until a latent counts as dead");
    v("buffer", buffer, "tokens in the shuffling buffer");
    v("skip-first", skip_first, "tokens left out at the start of every document");
    v("checkpoint-every", checkpoint_every, "steps between checkpoints");
    v("context", context, "tokens a document is cut to");
    v("held-out", held_out, "share of the documents kept for evaluation");
    v("activations", activations, "where the model's activations wait: disk (a cut-off run goes on) or memory");
    v("log-every", log_every, "steps per line of metrics.jsonl");
    v("dtype", dtype, "of the saved weights: f32 or bf16");
    v("compute", compute, "the encoder product in training: auto (bf16 where the CPU is fast at it), bf16 or f32");
    v("seed", seed, "of initialisation and shuffling");
  }
};

struct SaeTrainResult {
  std::string folder;  // where the SAE lies
  std::string site;
  SaeEvaluation evaluation;
  double tokens_per_s = 0;  // of training steps alone
  int64_t steps = 0, tokens = 0;
  int64_t corpus_tokens = 0;  // of the training documents, each cut to the context
  int64_t rows = 0;           // activations trained on: without first tokens, a shared prefix once per chunk
  Json density;               // {"never": latents, "bins": [{log10_low, log10_high, latents}]} on held-out rows
  Json to_json() const;
};

// Where an SAE reads, and for a transcoder what it gives there.
struct SaeSpot {
  Site site;
  std::optional<Site> out = {};
  bool operator==(const SaeSpot&) const = default;
};

// Trains an SAE per spot and variant from one pass over the model (activations of all sites are captured together and
// kept in memory or in cache files under the output folder). Variants differ in kind, d_sae and k only. Output: out, or
// out/<site>/ where there are several spots, and below it <kind>-<d_sae>-k<k>/ where there are several variants: the
// SAE, metrics.jsonl (a line per log_every steps) and metrics.json. Checkpoints under out/checkpoint; started again
// with the same options it resumes exactly where it was; other options are refused. Ctrl-C (Control) saves a checkpoint
// and throws kInterrupted.
std::vector<SaeTrainResult> train_saes(Engine& engine, std::span<const SaeSpot> spots,
                                       std::span<const std::vector<int32_t>> documents,
                                       std::span<const SaeTrainOptions> variants, const std::string& out,
                                       const Control& control);
std::vector<SaeTrainResult> train_saes(Engine& engine, std::span<const Site> sites,
                                       std::span<const std::vector<int32_t>> documents, const SaeTrainOptions& options,
                                       const std::string& out, const Control& control);

// One training step on given activations, exposed for tests and benchmarks.
class SaeTrainer {
 public:
  SaeTrainer(int64_t d_in, const SaeTrainOptions& options, int64_t total_steps, Mat<const float> sample);
  // A transcoder: `target` [sample rows, d_out] is what it should give for the sample [rows, d_in].
  SaeTrainer(const SaeTrainOptions& options, int64_t total_steps, Mat<const float> sample, Mat<const float> target);
  ~SaeTrainer();
  struct StepStats {
    double loss = 0, auxiliary_loss = 0, penalty = 0, fvu = 0, l0 = 0, dead = 0;  // loss holds penalty
  };
  StepStats step(Mat<const float> x);                           // x [batch, d_in]
  StepStats step(Mat<const float> x, Mat<const float> target);  // of a transcoder: target [batch, d_out]
  const SaeWeights& weights() const;                            // without what only some kinds have
  std::shared_ptr<const Sae> snapshot(const std::string& site, const std::string& model,
                                      const std::string& site_out = "") const;
  void save_state(const std::string& file) const;
  void load_state(const std::string& file);
  int64_t steps_done() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace saif
