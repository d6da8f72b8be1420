// Parts of explaining latents that need no model.
#pragma once

#include <map>
#include <span>
#include <vector>

#include "saif/study.h"

namespace saif {

// Collects what some latents of one SAE do, text by text.
class LatentWatcher {
 public:
  LatentWatcher(int64_t d_sae, std::span<const int32_t> latents, const ExplainOptions& options);
  // latents: the rows of one text, one a token. counted_from: tokens before it are not counted and hold no peak.
  void add(const SparseLatents& latents, std::span<const std::string> tokens, int64_t counted_from);
  LatentExplanation explanation(size_t number) const;  // density, histogram, contexts, coactive

 private:
  struct Watched {
    int32_t index = 0;
    std::vector<float> values;                                            // where it fires
    std::vector<int64_t> together;                                        // [d_sae] tokens on which both fire
    std::vector<std::pair<double, LatentExplanation::Context>> contexts;  // peak, strongest first
  };
  void add_context(Watched& watched, const std::vector<float>& activations, std::span<const std::string> tokens,
                   int64_t counted_from) const;

  ExplainOptions options_;
  std::map<int32_t, size_t> numbers_;
  std::vector<Watched> watched_;
  std::vector<int64_t> fired_;  // [d_sae]
  int64_t tokens_ = 0;
};

// The latents whose decoder rows point most nearly the same way as each of `latents`.
std::vector<std::vector<LatentExplanation::Neighbour>> nearest_by_decoder(const Sae& sae,
                                                                          std::span<const int32_t> latents, int count);

struct Proximity {
  double cosine = 0, p_latents = 1, p_words = 1;
  size_t nearest = 0;
  double nearest_cosine = 0;
};
struct ProximityInput {
  Mat<const float> row;     // [1, d] decoder row
  Mat<const float> others;  // [m, d] of random latents
  Mat<const float> words;   // [w, d] centred embeddings of the instruction's words
  Mat<const float> pool;    // [v, d] of words of the vocabulary
  int draws = 999;
  uint64_t seed = 0;
};
Proximity proximity_of(const ProximityInput& input);

}  // namespace saif
