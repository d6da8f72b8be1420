// Answers of methods and controls on the same contents, graded by one verifier under one decoding setting.
#include <algorithm>
#include <cmath>
#include <map>

#include "saif/stats.h"
#include "saif/study.h"

namespace saif {
namespace {

// Which generation gives the answer of (request, content).
struct Job {
  GenerateRequest request;
  std::string message;
  std::vector<std::pair<size_t, size_t>> uses;  // (request, content): answers without a vector are shared
};

size_t contents_of(const EvalRequest& request, size_t all) {
  return request.contents > 0 ? std::min(all, static_cast<size_t>(request.contents)) : all;
}

std::vector<std::string> english_wordings(const Task& task) {
  std::vector<std::string> out;
  for (const Variant& v : task.variants) {
    if (v.language == "en") out.push_back(v.text);
  }
  if (out.empty()) out.push_back(task.variants.front().text);
  return out;
}

// The prompted control cycles through the English wordings; every other method sees the content alone.
std::string message_for(const EvalRequest& request, const std::vector<std::string>& wordings, const Content& content,
                        size_t index) {
  if (request.recipe.method != "prompt") return content.text;
  return place(content.text, wordings[index % wordings.size()], parse_placement(request.recipe.placement));
}

std::vector<Job> make_jobs(const Engine& engine, std::span<const EvalRequest> requests,
                           std::span<const Content> contents, const DecodeOptions& decode) {
  std::vector<Job> jobs;
  std::map<std::string, size_t> plain;              // message -> job of an answer without a vector
  std::map<std::string, std::vector<int32_t>> ids;  // message -> prompt
  for (size_t r = 0; r < requests.size(); ++r) {
    const EvalRequest& request = requests[r];
    std::vector<std::vector<AppliedEdit>> edits;  // one set per vector
    for (const auto& v : request.vectors) edits.push_back({make_edit(*v, 1.0, engine.model().architecture())});
    const std::vector<std::string> wordings = english_wordings(*request.task);
    for (size_t c = 0; c < contents_of(request, contents.size()); ++c) {
      std::string message = message_for(request, wordings, contents[c], c);
      if (edits.empty()) {
        const auto [it, fresh] = plain.emplace(message, jobs.size());
        if (!fresh) {
          jobs[it->second].uses.emplace_back(r, c);
          continue;
        }
      }
      std::vector<int32_t>& prompt = ids[message];
      if (prompt.empty()) prompt = prompt_ids(engine.tokenizer(), message);
      Job& job = jobs.emplace_back();
      job.message = std::move(message);
      job.uses = {{r, c}};
      job.request.ids = prompt;
      job.request.max_new_tokens = decode.max_new_tokens;
      job.request.sampling.repetition_penalty = decode.repetition_penalty;
      job.request.sampling.temperature = decode.temperature;
      job.request.sampling.seed = decode.seed;
      if (!edits.empty()) job.request.edits = edits[c % edits.size()];
      job.request.stream = static_cast<int64_t>(c);  // a content's random numbers are the same under every method
    }
  }
  return jobs;
}

void summarise(MethodResult& result) {
  const auto n = static_cast<int64_t>(result.answers.size());
  int64_t fluent = 0;
  std::vector<double> perplexities;
  result.checker.n = result.strict.n = result.loose.n = n;
  result.checker.hits = result.strict.hits = result.loose.hits = 0;
  result.distinct2 = result.repetition = result.empty = 0;
  for (const Answer& a : result.answers) {
    result.checker.hits += a.verdict.checker;
    result.strict.hits += a.verdict.strict;
    result.loose.hits += a.verdict.loose;
    fluent += fluency(a.text).fluent;
    result.distinct2 += a.quality.distinct2 / static_cast<double>(n);
    result.repetition += a.quality.repetition / static_cast<double>(n);
    result.empty += a.quality.empty ? 1.0 / static_cast<double>(n) : 0.0;
    if (a.perplexity > 0) perplexities.push_back(a.perplexity);
  }
  if (!perplexities.empty()) {
    std::sort(perplexities.begin(), perplexities.end());
    const size_t n_of = perplexities.size();
    result.perplexity = (perplexities[(n_of - 1) / 2] + perplexities[n_of / 2]) / 2;
  }
  const double success = result.checker.value();
  const double quality = n ? static_cast<double>(fluent) / static_cast<double>(n) : 0.0;
  result.quality = success + quality > 0 ? 2 * success * quality / (success + quality) : 0.0;
}

}  // namespace

Interval Share::ci() const { return wilson_interval(hits, n); }

void measure_perplexity(Engine& engine, std::span<MethodResult> results, std::span<const Content> contents,
                        const Control& control) {
  std::vector<Engine::ScoreRequest> scored;
  std::vector<Answer*> where;
  for (MethodResult& result : results) {
    for (size_t c = 0; c < result.answers.size(); ++c) {
      Answer& answer = result.answers[c];
      if (answer.ids.empty()) continue;
      Engine::ScoreRequest request;
      request.ids = prompt_ids(engine.tokenizer(), contents[c].text);  // the instruction is never shown here
      request.context = static_cast<int64_t>(request.ids.size());
      request.ids.insert(request.ids.end(), answer.ids.begin(), answer.ids.end());
      scored.push_back(std::move(request));
      where.push_back(&answer);
    }
  }
  const std::vector<Engine::Score> scores = engine.score(scored, {}, control);
  for (size_t i = 0; i < scores.size(); ++i) {
    where[i]->perplexity =
        std::exp(-scores[i].log_probability / static_cast<double>(std::max<int64_t>(scores[i].tokens, 1)));
  }
  for (MethodResult& result : results) summarise(result);
}

std::vector<MethodResult> evaluate(Engine& engine, std::span<const EvalRequest> requests,
                                   std::span<const Content> contents, const EvalOptions& options,
                                   const Control& control,
                                   const std::function<void(size_t, const MethodResult&)>& on_result) {
  if (contents.empty()) throw Error(Errc::kInvalidArgument, "no content to evaluate on");
  std::vector<std::unique_ptr<const Verifier>> verifiers;
  std::vector<MethodResult> results(requests.size());
  std::vector<size_t> missing(requests.size());
  for (size_t r = 0; r < requests.size(); ++r) {
    verifiers.push_back(make_verifier(requests[r].task->verifier, requests[r].task->verifier_args));
    results[r].recipe = requests[r].recipe;
    missing[r] = contents_of(requests[r], contents.size());
    results[r].answers.resize(missing[r]);
    if (!requests[r].vectors.empty()) {
      const SteeringVector& first = *requests[r].vectors.front();  // draws of a control share site and norm
      results[r].site = first.site;
      results[r].vector_norm = first.norm() * std::abs(first.scale);
    }
  }
  const std::vector<Job> jobs = make_jobs(engine, requests, contents, options.decode);
  std::vector<GenerateRequest> generation;
  for (const Job& job : jobs) generation.push_back(job.request);

  const auto on_done = [&](size_t j, const GenerateResult& generated) {
    for (const auto& [r, c] : jobs[j].uses) {
      Answer& answer = results[r].answers[c];
      answer.content_id = contents[c].id;
      answer.prompt = jobs[j].message;
      answer.text = generated.text;
      answer.ids = generated.ids;
      answer.finish = generated.finish;
      answer.verdict = judge_answer(*verifiers[r], generated.text);
      answer.quality = text_quality(generated.text);
      if (--missing[r] > 0) continue;
      summarise(results[r]);
      if (on_result && !options.perplexity) on_result(r, results[r]);
    }
  };
  engine.generate(generation, control, {}, on_done);
  if (options.perplexity) {
    measure_perplexity(engine, results, contents, control);
    for (size_t r = 0; on_result && r < results.size(); ++r) on_result(r, results[r]);
  }
  return results;
}

PairedTest compare_strict(const MethodResult& a, const MethodResult& b) {
  PairedCounts counts;
  std::map<std::string, bool> second;
  for (const Answer& answer : b.answers) second[answer.content_id] = answer.verdict.strict;
  for (const Answer& answer : a.answers) {
    const auto other = second.find(answer.content_id);
    if (other == second.end()) continue;
    const bool first = answer.verdict.strict;
    ++(first ? (other->second ? counts.both : counts.only_first)
             : (other->second ? counts.only_second : counts.neither));
  }
  PairedTest out{counts.both + counts.only_first + counts.only_second + counts.neither,
                 counts.only_first,
                 counts.only_second,
                 mcnemar_exact(counts.only_first, counts.only_second),
                 0,
                 {-1, 1}};
  if (out.n > 0) {
    out.difference = static_cast<double>(counts.only_first - counts.only_second) / static_cast<double>(out.n);
    out.ci = paired_difference_interval(counts);
  }
  return out;
}

}  // namespace saif
