// Counts of latents over the three classes of prompts: with the instruction, without it, with an unrelated one.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "saif/study.h"

namespace saif {

// What a set of rows of one SparseLatents holds: for rows (content c, wording v) numbered c * wordings + v.
struct PromptSet {
  std::vector<int64_t> rows;  // row of the latents for each (content, wording)
  int64_t wordings = 0;
};

// Sums over prompts of one latent; everything else follows from these.
struct LatentSums {
  int64_t pos = 0, neg = 0, unrelated = 0;  // prompts on which it is active
  int64_t pairs = 0, unrelated_pairs = 0;   // active on x+ (unrelated) and not on the same content's x-
  double sum = 0, sum_squares = 0;          // of a_j(x+)
  double sum_neg = 0;                       // of a_j(x-)
};

struct Contrast {
  int64_t n_pos = 0, n_neg = 0, n_unrelated = 0;
  std::vector<LatentSums> sums;  // [d_sae]
};
Contrast contrast(const SparseLatents& latents, int64_t d_sae, const PromptSet& pos, const PromptSet& plain,
                  const PromptSet& unrelated);

// How much more often each latent is active with the instruction than with an unrelated one, content by content, in
// units of 1 / (wordings of pos x wordings of unrelated): [d_sae][contents] in one vector.
std::vector<int64_t> rate_differences(const SparseLatents& latents, int64_t d_sae, const PromptSet& pos,
                                      const PromptSet& unrelated);

// Of the contents, or of the wordings, every other one, from the first-th (0 or 1).
PromptSet every_other_content(const PromptSet& set, size_t first);
PromptSet every_other_wording(const PromptSet& set, size_t first);

// Mean over wordings of s_cj for each content c of some latents: [latents][contents], for the bootstrap.
std::vector<std::vector<double>> pair_shares(const SparseLatents& latents, std::span<const int32_t> chosen,
                                             const PromptSet& pos, const PromptSet& plain);

}  // namespace saif
