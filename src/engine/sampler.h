// One row of logits to one token. The order of changes is that of Transformers: repetition penalty, temperature, top-k,
// top-p, min-p.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "saif/engine.h"

namespace saif {

// Throws kInvalidArgument naming the field; `who` begins the message: "request 3".
void check_sampling(const SamplingOptions& options, const std::string& who);

// The choices of one request. Its n-th choice depends on (seed, stream, n) and the logits only.
class Sampler {
 public:
  Sampler(const SamplingOptions& options, uint64_t stream, int n_logprobs);

  // logits [vocab] are overwritten. Returns -1 when they are not finite. With n_logprobs > 0 logprobs() is of this
  // choice: log-probabilities under the raw logits, before penalty and temperature.
  int32_t choose(std::span<float> logits);
  const TokenLogprobs& logprobs() const { return logprobs_; }

 private:
  struct Candidate {
    float logit;
    int32_t id;
  };
  void summarise(std::span<const float> logits);  // block_max_, max_
  void summarise_block(std::span<const float> logits, size_t block);
  void penalise(std::span<float> logits);  // and brings block_max_, max_ up to date
  // Candidates of logits > threshold, unordered by value.
  void collect(std::span<const float> logits, float threshold);
  int32_t best(std::span<const float> logits) const;
  int32_t draw(std::span<const float> logits);
  int32_t draw_from_all(std::span<const float> logits, double u);
  int32_t draw_from_head(std::span<const float> logits, double u);
  // Sum of exp((logit - max) / temperature); fills block_mass_. Once for a token.
  double mass(std::span<const float> logits);
  // The largest logits, sorted, ties by id: at least the k largest, or those that hold `share` of the mass.
  void collect_head(std::span<const float> logits, size_t k);
  size_t cut_top_p(double total) const;
  void note_logprobs(std::span<const float> logits);

  SamplingOptions options_;
  uint64_t stream_;
  int n_logprobs_;
  uint64_t n_chosen_ = 0;
  std::vector<int32_t> seen_;  // distinct tokens generated so far, ascending
  std::vector<float> raw_;     // their logits before the penalty
  float max_ = 0;
  std::vector<float> block_max_;
  std::vector<double> block_mass_;
  double mass_ = 0;
  bool has_mass_ = false;
  std::vector<Candidate> candidates_;
  double raw_log_sum_ = 0;
  TokenLogprobs logprobs_;
};

}  // namespace saif
