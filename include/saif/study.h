// The study: which latents an instruction switches on, vectors made of them, and what the vectors do.
// Methods and equations: docs/method.md. Everything here is deterministic for given inputs, options and seed. Functions
// that take an Engine& use it from the calling thread, one at a time per engine; records are plain values.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "saif/control.h"
#include "saif/engine.h"
#include "saif/sae.h"
#include "saif/stats.h"
#include "saif/task.h"
#include "saif/vector.h"
#include "saif/verify.h"

namespace saif {

// --- discovery ------------------------------------------------------------------------------------------------------

struct FindOptions {
  int k = 15;                          // latents shown per layer
  std::string placement = "post";      // where the instruction stands: post, pre, or "post,pre" for both
  std::string rank = "specific_mean";  // sensitivity | specificity | specific_mean | mean_difference
  std::string stats = "all";           // mu and sigma over all prompts, or over those where the latent is active
  int contents = 24;                   // discovery contents used
  int variants = 0;                    // wordings used per task; 0: all
  double max_density = 1.0;            // latents active on a larger share of ordinary tokens are left out
  int keep = 128;                      // latents kept in the study per layer and ranking
  int64_t seed = 0;
  template <typename V>
  void describe(V& v) {
    v("k", k, "latents shown per layer");
    v("placement", placement, "where the instruction stands: post, pre or post,pre");
    v("rank", rank, "sensitivity, specificity, specific_mean (specificity x mean) or mean_difference");
    v("stats", stats, "mean and deviation over all prompts, or over the active ones");
    v("contents", contents, "discovery contents used; 0 is all");
    v("variants", variants, "wordings used; 0 is all");
    v("max-density", max_density, "leave out latents active on a larger share of ordinary tokens");
    v("keep", keep, "latents kept per layer and ranking");
    v("seed", seed, "of bootstrap intervals and controls");
  }
};

struct TokenWeight {
  std::string token;
  double logit = 0;
};

// One latent against one instruction at the last prompt token. Shares are over n pairs (content, wording).
struct LatentStats {
  int32_t index = 0;
  double sensitivity = 0;  // C_j: active with the instruction and not without     (SAIF)
  Interval ci;             // of C_j, 95 %: bootstrap over contents; Wilson's of so many contents where all agree
  double rate_pos = 0, rate_neg = 0, rate_unrelated = 0;  // share active: with it, without, with an unrelated one
  double sensitivity_unrelated = 0;                       // C_j of the unrelated instructions
  double specificity = 0;                                 // C_j - C_j(unrelated)
  double mean = 0, std = 0;                               // mu_j, sigma_j of a_j(x+)
  double mean_active = 0, std_active = 0;                 // where a_j > 0
  double mean_neg = 0;                                    // mean of a_j(x-)
  double density = 0;                                     // share of ordinary tokens on which it is active
  double score = 0;                                       // what the ranking sorts by
  double q_value = 1;  // Benjamini-Hochberg over all latents, of rate_pos against rate_unrelated, contents as units
  std::vector<std::string> flags;        // "dense", ...
  std::vector<TokenWeight> top, bottom;  // logit lens: W_U LN(W_dec[j])
  Json to_json() const;
  static LatentStats from_json(const Json& json);
};

struct Discovery {
  std::string task, site, placement, sae_path, sae_sha256, rank, stats;
  int64_t contents = 0, variants = 0, pairs = 0;
  std::vector<LatentStats> latents;  // best first by `rank`, at most `keep`
  // Jaccard index of the k best of one half of the contents (wordings) and of the other; -1: only one there.
  double stability_contents = -1, stability_wordings = -1;
  std::vector<float> diffmean;     // [d_model] mean h(x+) - mean h(x-)
  std::vector<float> mean_neg;     // [d_model] mean h(x-)
  double row_scale = 1;            // mean over h(x+) of what undoing the SAE's input normalisation multiplies by
  std::vector<float> firing_rate;  // [d_sae] rate_pos of every latent: for random latents of equal rate
  Json to_json() const;            // keys of `saif find --json` per layer, and what a study needs
  static Discovery from_json(const Json& json);
};

struct FindResult {
  std::vector<Discovery> discoveries;  // per SAE and placement
  TokenCounts tokens;
};

// Throws what find_latents would refuse, before any work and before anything is written.
void check_find(const Engine& engine, std::span<const std::shared_ptr<const Sae>> saes,
                std::span<const Content> contents, const FindOptions& options);

// Prompts of all tasks go through the model in one trie. Result [task]: one entry per task, in order.
std::vector<FindResult> find_latents(Engine& engine, std::span<const std::shared_ptr<const Sae>> saes,
                                     std::span<const Task> tasks, std::span<const Content> contents,
                                     const FindOptions& options, const Control& control);

// Re-sorts a discovery's kept latents by another ranking.
void rank_latents(Discovery& discovery, const std::string& rank);

// Top tokens of W_U LN(row), both ends, for decoder rows [n, d_model].
struct LogitLens {
  std::vector<TokenWeight> top, bottom;
};
std::vector<LogitLens> logit_lens(const Engine& engine, Mat<const float> rows, int n_tokens);

// --- vectors --------------------------------------------------------------------------------------------------------

// How a method steers. `none` and `prompt` have no vector.
struct Recipe {
  std::string method = "saif";     // none | prompt | saif | diffmean | random | random_latents
  std::string placement = "post";  // of the prompt (method prompt), or of the discovery
  int layer = -1;                  // block whose resid_post is edited
  int k = 15;
  double beta = 1.0;  // alpha_j = mu_j + beta * sigma_j
  double scale = 1.0;
  std::string rank = "specific_mean";
  double decay = 0.0;      // strength (1 + decay t)^-1 over generated tokens
  std::string op = "add";  // add, or project: the component along the vector becomes scale times its length
  bool norm_preserving = false;
  int64_t seed = 0;  // of the random methods
  int draws = 0;     // vectors of a random method: content c is steered by the (c mod draws)-th; 0: one per content
  template <typename V>
  void describe(V& v) {
    v("method", method, "none, prompt, saif, diffmean, random or random_latents");
    v("placement", placement, "post or pre");
    v("layer", layer, "block whose resid_post is edited");
    v("k", k, "latents in the vector");
    v("beta", beta, "alpha = mean + beta * deviation");
    v("scale", scale, "strength of the vector");
    v("rank", rank, "how latents are ranked");
    v("decay", decay, "strength over generated tokens: (1 + decay t)^-1");
    v("op", op, "add, or project: set the component along the vector to its length");
    v("norm-preserving", norm_preserving, "scale the edited row back to its norm");
    v("seed", seed, "of the random controls");
    v("draws", draws, "vectors of a random control, shared out over the prompts; 0: one for every prompt");
  }
};
std::string label_of(const Recipe& recipe);  // "saif L24 k15 b1 x1.25"

// v = row_scale sum_j alpha_j W_dec[j] (saif); random and random_latents have the norm of the saif vector of the same
// recipe, diffmean its own norm. Throws kInvalidArgument for k larger than what is kept or the dictionary.
SteeringVector build_vector(const Discovery& discovery, const Sae& sae, const Recipe& recipe);

// The vectors of a recipe for so many contents: none of none and prompt, one of saif and diffmean, `draws` (seeds seed,
// seed + 1, ...) of the random methods, so that a control does not stand or fall with one draw. Draws of different
// tasks, sites and seeds are independent. Throws what build_vector throws.
using Vectors = std::vector<std::shared_ptr<const SteeringVector>>;
Vectors build_vectors(const Discovery& discovery, const Sae& sae, const Recipe& recipe, size_t contents);

// --- evaluation -----------------------------------------------------------------------------------------------------

// One decoding setting for all methods and controls.
struct DecodeOptions {
  int64_t max_new_tokens = 40;
  double repetition_penalty = 1.15;  // over generated tokens
  double temperature = 0.0;
  int64_t seed = 0;
  template <typename V>
  void describe(V& v) {
    v("max-tokens", max_new_tokens, "new tokens per answer");
    v("repetition-penalty", repetition_penalty, "over generated tokens");
    v("temperature", temperature, "0 is greedy");
    v("seed", seed, "of sampling");
  }
};

struct Answer {
  std::string content_id, prompt, text, finish;
  Verdict verdict;
  TextQuality quality;
  std::vector<int32_t> ids;  // the generated tokens
  double perplexity = 0;     // of them under the unsteered model given the content-only prompt; 0: not measured
};

struct Share {  // a share with its n and Wilson 95 % interval
  int64_t hits = 0, n = 0;
  double value() const { return n ? static_cast<double>(hits) / static_cast<double>(n) : 0.0; }
  Interval ci() const;
};

struct MethodResult {
  Recipe recipe;
  std::string site;
  std::vector<Answer> answers;  // one per content, in order
  Share checker, strict, loose;
  double vector_norm = 0;
  double perplexity = 0;                            // median over answers; 0: not measured
  double distinct2 = 0, repetition = 0, empty = 0;  // means
  double quality = 0;                               // harmonic mean of the checker's share and the fluent share
  Json to_json() const;                             // keys of `saif eval --json` rows
};

struct EvalRequest {
  const Task* task = nullptr;
  Recipe recipe;
  Vectors vectors;       // empty for none and prompt; content c takes the (c mod size)-th
  int64_t contents = 0;  // only the first ones; 0: all
};

struct EvalOptions {
  DecodeOptions decode;
  bool perplexity = false;  // one more pass over the answers
};

// Runs every request over its contents in one call of the engine: contents share prefixes, settings share products.
// on_result is called as soon as a request's last answer is in (any order). Results in the order of requests.
std::vector<MethodResult> evaluate(Engine& engine, std::span<const EvalRequest> requests,
                                   std::span<const Content> contents, const EvalOptions& options,
                                   const Control& control,
                                   const std::function<void(size_t, const MethodResult&)>& on_result = {});

// Adds perplexities to results that were generated without: contents[c] is what answers[c] was given.
void measure_perplexity(Engine& engine, std::span<MethodResult> results, std::span<const Content> contents,
                        const Control& control);

// Two methods' strict verdicts on the contents that both answered: McNemar's exact test, and how far the shares lie
// apart.
struct PairedTest {
  int64_t n = 0, only_first = 0, only_second = 0;
  double p = 1;
  double difference = 0;  // share of the first - share of the second
  Interval ci;            // of it (Newcombe); [-1, 1] without a shared content
  Json to_json() const;   // "against_saif" of `saif eval --json`, the first being saif
};
PairedTest compare_strict(const MethodResult& a, const MethodResult& b);

// --- what an SAE's latents know (docs/method.md, "Probes and absorption") --------------------------------------------

struct LabelledText {
  std::string text, label;
  std::string split;  // "train" or "test"; "": drawn
};
// JSON lines {"text", "label", "split" (may be absent)}; "": data/probe.jsonl. Throws Error naming the line.
std::vector<LabelledText> load_labelled_texts(const std::string& path = "");

struct ProbeOptions {
  std::vector<int> k = {1, 5, 20};
  std::string pool = "last";
  double test_share = 0.3;
  int64_t seed = 0;
  template <typename V>
  void describe(V& v) {
    v("probe-k", k, "latents of a sparse probe");
    v("probe-pool", pool, "a text's row: last (of the prompt) or mean (over its tokens but the first)");
    v("probe-test-share", test_share, "share of the texts to test on, where they name no split");
    v("seed", seed, "of drawn splits and samples");
  }
};

// One-against-the-rest probes of each label; accuracy on as many texts with the label as without, so that chance is
// 1/2.
struct ProbeResult {
  struct Class {
    std::string label;
    int64_t train = 0;             // texts with the label that were trained on
    std::vector<int32_t> latents;  // largest difference of means first
    Share dense;                   // logistic regression on the activations
    std::vector<Share> sparse;     // on the first k of `latents`, per k
  };
  std::vector<int> k;
  int64_t train = 0, test = 0;  // texts
  std::vector<Class> classes;   // of two labels only the first, which says all
  Share dense() const;          // over all classes
  Share sparse(size_t i) const;
  Json to_json() const;
};
ProbeResult probe_sae(const Sae& sae, Engine& engine, std::span<const LabelledText> texts, const ProbeOptions& options,
                      const Control& control);

struct AbsorptionOptions {
  int words = 60;            // per letter, trained and tested on
  int min_words = 20;        // letters with fewer are left out
  double test_share = 0.4;   // of the words
  double cosine = 0.1;       // of an absorbing latent's decoder row with the probe, at least
  double share = 0.4;        // of the row's projection on the probe that the absorbing latent gives, at least
  double split_gain = 0.03;  // in F1, that makes another latent one of the letter's
  int64_t seed = 0;
};

// Whether the letter that a word begins with is carried by the latents that stand for that letter, or by others that
// stand for the word (Chanin et al. 2024). Shares are of the tested words whose letter the dense probe tells.
struct AbsorptionResult {
  struct Letter {
    std::string letter;
    int64_t train = 0, test = 0;        // words
    Share probe;                        // tested words whose letter the dense probe tells
    std::vector<int32_t> latents;       // that stand for the letter: the best detector, and those that add to it
    double f1 = 0;                      // of their firing as a detector, on the training words
    Share silent;                       // none of them fires
    Share absorbed;                     // ... and another latent carries the letter
    std::vector<std::string> examples;  // absorbed words
  };
  std::vector<Letter> letters;
  std::string skipped;  // why there is none
  Share probe() const;
  Share silent() const;
  Share absorbed() const;
  Json to_json() const;
};
AbsorptionResult first_letter_absorption(const Sae& sae, Engine& engine, const AbsorptionOptions& options,
                                         const Control& control);

// --- what a latent stands for (docs/method.md, "Explaining latents") ------------------------------------------------

struct ExplainOptions {
  int tokens = 10;
  int contexts = 5;
  int window = 12;
  int neighbours = 5;
  int draws = 999;
  int64_t seed = 0;
  template <typename V>
  void describe(V& v) {
    v("tokens", tokens, "tokens of the logit lens");
    v("contexts", contexts, "texts in which the latent is strongest");
    v("window", window, "tokens shown on either side of the peak");
    v("neighbours", neighbours, "nearest latents shown");
    v("draws", draws, "random latents and sets of words of the permutation tests");
    v("seed", seed, "of these draws");
  }
};

struct LatentExplanation {
  struct Bin {  // of activations: low < a <= high
    double low = 0, high = 0;
    int64_t tokens = 0;
  };
  struct Context {  // a stretch of text and the latent's activation on each of its tokens
    std::vector<std::string> tokens;
    std::vector<double> activations;
    size_t peak = 0;  // where it is strongest in its whole text
  };
  struct Neighbour {
    int32_t index = 0;
    double value = 0;
  };
  std::string site;
  int32_t index = 0;
  LogitLens lens;                            // empty where the SAE does not write into the residual stream
  Share density;                             // of the texts' tokens, those before the texts differ left out
  double maximum = 0;                        // activation
  std::vector<Bin> histogram;                // ten bins from 0 to the maximum
  std::vector<Context> contexts;             // strongest first, at most one of a text
  std::vector<Neighbour> decoder, coactive;  // by cosine of decoder rows; by Jaccard index of the tokens they fire on
  // Mean cosine of the decoder row with the centred embeddings of the instruction's words, against random latents of
  // the dictionary and against random words of the vocabulary (one-sided; Phipson & Smyth). 1 without words.
  std::vector<std::string> words;
  double proximity = 0, p_latents = 1, p_words = 1;
  std::string nearest_word;
  double nearest_cosine = 0;
  Json to_json() const;
};

struct ExplainSet {
  std::shared_ptr<const Sae> sae;
  std::vector<int32_t> latents;
};
// One pass over the documents for all sets. words: see instruction_words.
std::vector<std::vector<LatentExplanation>> explain_latents(Engine& engine, std::span<const ExplainSet> sets,
                                                            std::span<const std::vector<int32_t>> documents,
                                                            std::span<const std::string> words,
                                                            const ExplainOptions& options, const Control& control);

// Prompts to look at a task's latents in: each content alone, with a wording of the instruction, with an unrelated one,
// with another bundled task's; and ordinary text.
std::vector<std::vector<int32_t>> explanation_documents(const Tokenizer& tokenizer, const Task& task,
                                                        std::span<const Content> contents);
// Words of the task's wordings that stand in no unrelated instruction and in the wordings of fewer than three other
// bundled tasks: what is left names the instruction. Lower case but for a language's own capitals, sorted.
std::vector<std::string> instruction_words(const Task& task);

}  // namespace saif
