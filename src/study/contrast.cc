#include "study/contrast.h"

#include <algorithm>

namespace saif {
namespace {

struct Entries {
  const int32_t* begin;
  const int32_t* end;
  const float* values;
  bool has(int32_t j) const { return std::binary_search(begin, end, j); }
};

// Indices are ascending within a row. Values <= 0 do not count as active (some codes keep negative values).
Entries entries_of(const SparseLatents& latents, int64_t row) {
  const int64_t from = latents.row_offsets[static_cast<size_t>(row)];
  const int64_t to = latents.row_offsets[static_cast<size_t>(row) + 1];
  return {latents.indices.data() + from, latents.indices.data() + to, latents.values.data() + from};
}

template <typename Visit>
void for_each_prompt(const SparseLatents& latents, const PromptSet& set, const PromptSet& plain, const Visit& visit) {
  for (size_t i = 0; i < set.rows.size(); ++i) {
    const size_t content = i / static_cast<size_t>(set.wordings);
    const Entries without = entries_of(latents, plain.rows[content]);
    const Entries with = entries_of(latents, set.rows[i]);
    for (const int32_t* j = with.begin; j != with.end; ++j) {
      const float value = with.values[j - with.begin];
      if (value > 0) visit(content, *j, value, !without.has(*j));
    }
  }
}

}  // namespace

Contrast contrast(const SparseLatents& latents, int64_t d_sae, const PromptSet& pos, const PromptSet& plain,
                  const PromptSet& unrelated) {
  Contrast out;
  out.n_pos = static_cast<int64_t>(pos.rows.size());
  out.n_neg = static_cast<int64_t>(plain.rows.size());
  out.n_unrelated = static_cast<int64_t>(unrelated.rows.size());
  out.sums.resize(static_cast<size_t>(d_sae));
  for_each_prompt(latents, pos, plain, [&](size_t, int32_t j, float value, bool only_with) {
    LatentSums& s = out.sums[static_cast<size_t>(j)];
    ++s.pos;
    s.pairs += only_with;
    s.sum += value;
    s.sum_squares += static_cast<double>(value) * value;
  });
  for_each_prompt(latents, unrelated, plain, [&](size_t, int32_t j, float, bool only_with) {
    LatentSums& s = out.sums[static_cast<size_t>(j)];
    ++s.unrelated;
    s.unrelated_pairs += only_with;
  });
  for_each_prompt(latents, plain, plain, [&](size_t, int32_t j, float value, bool) {
    LatentSums& s = out.sums[static_cast<size_t>(j)];
    ++s.neg;
    s.sum_neg += value;
  });
  return out;
}

std::vector<int64_t> rate_differences(const SparseLatents& latents, int64_t d_sae, const PromptSet& pos,
                                      const PromptSet& unrelated) {
  const size_t contents = pos.rows.size() / static_cast<size_t>(pos.wordings);
  std::vector<int64_t> out(static_cast<size_t>(d_sae) * contents);
  const auto add = [&](const PromptSet& set, int64_t each) {
    for (size_t i = 0; i < set.rows.size(); ++i) {
      const Entries active = entries_of(latents, set.rows[i]);
      for (const int32_t* j = active.begin; j != active.end; ++j) {
        if (active.values[j - active.begin] <= 0) continue;
        out[static_cast<size_t>(*j) * contents + i / static_cast<size_t>(set.wordings)] += each;
      }
    }
  };
  add(pos, unrelated.wordings);
  add(unrelated, -pos.wordings);
  return out;
}

PromptSet every_other_content(const PromptSet& set, size_t first) {
  PromptSet out{{}, set.wordings};
  const auto n = static_cast<size_t>(set.wordings);
  for (size_t i = 0; i < set.rows.size(); ++i) {
    if (i / n % 2 == first) out.rows.push_back(set.rows[i]);
  }
  return out;
}

PromptSet every_other_wording(const PromptSet& set, size_t first) {
  const auto n = static_cast<size_t>(set.wordings);
  PromptSet out{{}, static_cast<int64_t>((n + 1 - first) / 2)};
  for (size_t i = 0; i < set.rows.size(); ++i) {
    if (i % n % 2 == first) out.rows.push_back(set.rows[i]);
  }
  return out;
}

std::vector<std::vector<double>> pair_shares(const SparseLatents& latents, std::span<const int32_t> chosen,
                                             const PromptSet& pos, const PromptSet& plain) {
  const int32_t widest = chosen.empty() ? 0 : *std::max_element(chosen.begin(), chosen.end());
  std::vector<int32_t> place(static_cast<size_t>(widest) + 1, -1);
  for (size_t i = 0; i < chosen.size(); ++i) place[static_cast<size_t>(chosen[i])] = static_cast<int32_t>(i);
  std::vector<std::vector<double>> out(chosen.size(), std::vector<double>(plain.rows.size(), 0.0));
  const double share = 1.0 / static_cast<double>(pos.wordings);
  for_each_prompt(latents, pos, plain, [&](size_t content, int32_t j, float, bool only_with) {
    if (only_with && j <= widest && place[static_cast<size_t>(j)] >= 0) {
      out[static_cast<size_t>(place[static_cast<size_t>(j)])][content] += share;
    }
  });
  return out;
}

}  // namespace saif
