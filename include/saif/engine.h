// Running a model over many prompts: shared prefixes once (prompt trie), batched decoding with per-row edits, capture.
// Results of a prompt do not depend on what else is in the call, bit for bit.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "saif/control.h"
#include "saif/model.h"
#include "saif/tensor.h"
#include "saif/text.h"

namespace saif {

// A change of activations at one site, shared by any number of rows. Immutable; an engine calls it on the thread that
// called the engine, so engines of several threads may share it where apply() changes nothing but h.
class RowEdit {
 public:
  virtual ~RowEdit() = default;
  // h [n, width]: all rows of the batch that carry this edit, edited in place in float32. steps[i]: 0 for the last
  // prompt token, t for the t-th generated token, negative for earlier prompt tokens. Row by row: what happens to a
  // row must not depend on the others.
  virtual void apply(Mat<float> h, std::span<const int64_t> steps) const = 0;
};

enum class EditPositions {
  kGenerated,
  kAll,
  kLast
};  // last prompt token and generated | every row | last prompt token

struct AppliedEdit {
  Site site;
  EditPositions positions = EditPositions::kGenerated;
  std::shared_ptr<const RowEdit> edit;
};

struct SamplingOptions {
  double temperature = 0.0;  // 0: greedy
  int top_k = 0;             // 0: off
  double top_p = 1.0;
  double min_p = 0.0;
  double repetition_penalty = 1.0;  // over generated tokens only: logit > 0 ? / p : * p
  int64_t seed = 0;                 // with the request's index: the stream of random numbers
  template <typename V>
  void describe(V& v) {
    v("temperature", temperature, "0 is greedy");
    v("top_k", top_k, "sample among the k likeliest tokens; 0 is off");
    v("top_p", top_p, "sample among the likeliest tokens that hold this share of probability");
    v("min_p", min_p, "drop tokens less likely than this share of the likeliest");
    v("repetition_penalty", repetition_penalty, "divides positive logits of tokens already generated");
    v("seed", seed, "seed of the random numbers");
  }
};

struct GenerateRequest {
  std::vector<int32_t> ids;  // the prompt; at least one token
  int64_t max_new_tokens = 40;
  SamplingOptions sampling;
  std::vector<std::string> stop;  // stop strings: the text ends before the first of them
  bool ignore_eos = false;        // otherwise the tokenizer's stop_ids() end the text
  int logprobs = 0;               // K most likely tokens reported per generated token (0: none)
  std::vector<AppliedEdit> edits;
  int64_t stream = -1;  // number of the random stream; -1: the request's index in the call
};

// Under the raw logits: before repetition penalty, temperature and filters.
struct TokenLogprobs {
  float chosen = 0;                            // log-probability of the generated token
  std::vector<std::pair<int32_t, float>> top;  // the K likeliest, descending
};

struct GenerateResult {
  std::vector<int32_t> ids;  // new tokens, without the stop token
  std::string text;
  std::string finish;  // "stop" (end token), "stop_string", "length", "context"
  std::vector<TokenLogprobs> logprobs;
  int64_t edited_rows = 0;  // rows that edits touched, counted per edit
};

struct EngineOptions {
  int64_t max_batch = 128;          // sequences decoded together
  int64_t max_prefill_rows = 2048;  // rows of one prefill pass
};

struct TokenCounts {
  int64_t naive = 0;     // tokens of all prompts, one by one
  int64_t computed = 0;  // rows that went through the model
};

// One call at a time: an engine owns the memory of its passes. A second call, from another thread or from a callback of
// the first, throws kRefused. Threads that work side by side have an engine each; engines share the Model and the
// Tokenizer. The accessors may be called from anywhere.
class Engine {
 public:
  Engine(std::shared_ptr<const Model> model, std::shared_ptr<const Tokenizer> tokenizer, EngineOptions options = {});
  ~Engine();
  const Model& model() const;
  std::shared_ptr<const Model> model_ptr() const;
  const Tokenizer& tokenizer() const;
  std::shared_ptr<const Tokenizer> tokenizer_ptr() const;

  // Generates for all requests: shared prefixes are computed once, finished rows are replaced at once. Throws
  // kInvalidArgument for an empty prompt, one that leaves no room in the context, an id outside the vocabulary;
  // kNotFound for an edit at a site that the model does not have, kRefused when one of a request's edits touched no row
  // or made the logits infinite, kInterrupted when a stop was requested (finished results went to on_done).
  // on_token (may be empty): (request, token, text that became certain); an end token appears only if text that could
  // have begun a stop string was held back until then. Requests are worked on in the order of the trie.
  using OnToken = std::function<void(size_t request, int32_t id, const std::string& text)>;
  using OnDone = std::function<void(size_t request, const GenerateResult& result)>;
  std::vector<GenerateResult> generate(std::span<const GenerateRequest> requests, const Control& control,
                                       const OnToken& on_token = {}, const OnDone& on_done = {});

  // Runs prompts and lets an observer see them. `last_only`: only each prompt's last token is wanted (early exit after
  // the deepest wanted site; rows of other tokens stop as soon as they can). Without it every token of every prompt is
  // observed, but a shared prefix once: see `shared`.
  // Rows are reported with RowInfo::sequence = the first prompt that owns the row; with last_only, the first prompt
  // that ends there. Edits: kGenerated and kLast are the prompt's last token; kRefused when none touched a row.
  struct ObserveOptions {
    bool last_only = true;
    bool share_prefixes = true;  // false: every prompt alone, each of its rows reported
    std::vector<AppliedEdit> edits;
  };
  TokenCounts observe(std::span<const std::vector<int32_t>> prompts, Observer& observer, const ObserveOptions& options,
                      const Control& control);

  // Activations at sites, float32. last_only: [n_prompts, width] per site; otherwise all tokens of all prompts one
  // after another, [n_tokens, width]; row_offsets [n_prompts + 1].
  struct Capture {
    std::vector<std::pair<std::string, Tensor>> sites;  // in the order asked
    std::vector<int64_t> row_offsets;
    TokenCounts tokens;
    const Tensor& at(std::string_view name) const;
  };
  Capture capture(std::span<const std::vector<int32_t>> prompts, std::span<const Site> sites, bool last_only,
                  const Control& control);

  // Sum of log-probabilities and count of the tokens after the first `context` ones of each sequence (for perplexity of
  // answers, loss of texts). edits apply to every row when positions is kAll; steps are counted from the last given
  // token, which with the scored ones is what kGenerated means.
  struct Score {
    double log_probability = 0;
    int64_t tokens = 0;
    std::vector<double> each;  // of every scored token, in order, where the request asked for them
  };
  struct ScoreRequest {
    std::vector<int32_t> ids;
    int64_t context = 1;  // tokens that are given, not scored; >= 1
    bool each = false;
  };
  std::vector<Score> score(std::span<const ScoreRequest> requests, std::span<const AppliedEdit> edits,
                           const Control& control);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace saif
