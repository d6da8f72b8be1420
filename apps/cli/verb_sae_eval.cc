// saif sae eval: how good an SAE is on held-out text.
#include "sae_corpus.h"
#include "saif/study.h"
#include "study_tools.h"
#include "verbs.h"

namespace saif::cli {
namespace {

struct EvalArguments {
  CorpusOptions corpus;
  std::string sae;
  int64_t context = 256;
  std::string probe_file;
  bool no_probe = false, no_absorption = false;
  ProbeOptions probe;
};

constexpr int kShareDecimals = 3;

using Table = std::vector<std::vector<std::string>>;

void print_breakdown(const SaeBreakdown& b) {
  Table types = {{"tokens", "n", "L0", "FVU", "of error", "predicted", "CE clean", "CE SAE", "increase 95 %"}};
  for (const SaeBreakdown::Type& t : b.types) {
    const bool first = t.name == "first", predicted = t.predicted > 0;
    const auto nats = [&](double value) { return predicted ? format_number(value, 3) : std::string("-"); };
    types.push_back(
        {t.name, std::to_string(t.tokens), format_number(t.l0, 1), format_number(t.fvu, 4),
         first ? "-" : format_number(100 * t.error_share, 1) + "%", std::to_string(t.predicted), nats(t.ce_clean),
         nats(t.ce_sae),
         predicted ? format_number(t.ce_increase_low, 3) + " to " + format_number(t.ce_increase_high, 3) : "-"});
  }
  print_line("\nby type of token (L0 and FVU of its rows, CE of predicting it)\n" + format_table(types));
  Table density = {{"density", "latents"}, {"never", std::to_string(b.never)}};
  for (const SaeBreakdown::Bin& bin : b.density) {
    density.push_back(
        {"10^" + format_number(bin.low, 1) + " to 10^" + format_number(bin.high, 1), std::to_string(bin.latents)});
  }
  print_line("\nhow often latents fire\n" + format_table(density));
}

void print_probe(const ProbeResult& p) {
  Table rows = {{"label", "n"}};
  for (const int k : p.k) rows[0].push_back(std::to_string(k) + (k == 1 ? " latent" : " latents"));
  rows[0].insert(rows[0].end(), {"dense", "best latent"});
  for (const ProbeResult::Class& c : p.classes) {
    rows.push_back({c.label, std::to_string(c.dense.n)});
    for (const Share& s : c.sparse) rows.back().push_back(format_number(s.value(), 3));
    rows.back().push_back(format_number(c.dense.value(), 3));
    rows.back().push_back(c.latents.empty() ? "-" : std::to_string(c.latents.front()));
  }
  rows.push_back({"all [95 %]", std::to_string(p.dense().n)});
  for (size_t i = 0; i < p.k.size(); ++i) rows.back().push_back(share_text(p.sparse(i), kShareDecimals));
  rows.back().insert(rows.back().end(), {share_text(p.dense(), kShareDecimals), ""});
  print_line("\nsparse probing: accuracy on unseen texts, half of them with the label (trained on " +
             std::to_string(p.train) + " texts)\n" + format_table(rows));
}

void print_absorption(const AbsorptionResult& a) {
  if (!a.skipped.empty()) return print_line("\nfirst letter: not measured, " + a.skipped);
  Table rows = {{"letter", "words", "probe", "latents", "F1", "silent", "absorbed", "absorbed words"}};
  const auto joined = [](const auto& items, const auto& text) {
    std::string out;
    for (const auto& item : items) out += (out.empty() ? "" : " ") + text(item);
    return out;
  };
  for (const AbsorptionResult::Letter& l : a.letters) {
    rows.push_back({l.letter, std::to_string(l.test), format_number(l.probe.value(), 2),
                    joined(l.latents, [](int32_t j) { return std::to_string(j); }), format_number(l.f1, 2),
                    format_number(l.silent.value(), 2), format_number(l.absorbed.value(), 2),
                    joined(l.examples, [](const std::string& w) { return w; })});
  }
  print_line("\nfirst letter of words: the dense probe tells " + share_text(a.probe(), kShareDecimals) + " of " +
             std::to_string(a.probe().n) + " unseen words; of the " + std::to_string(a.silent().n) +
             " told, the letter's latents are silent on " + share_text(a.silent(), kShareDecimals) + ", absorbed " +
             share_text(a.absorbed(), kShareDecimals) + "\n" + format_table(rows));
}

// Adds what was measured to the JSON, or prints it.
void probe_and_absorb(const Context& context, const EvalArguments& o, std::span<const LabelledText> texts,
                      const Sae& sae, Engine& engine, Json& json) {
  if (!o.no_probe) {
    const ProbeResult result = probe_sae(sae, engine, texts, o.probe, context.control);
    json["probe"] = result.to_json();
    if (!context.json) print_probe(result);
  }
  if (!o.no_absorption) {
    const AbsorptionResult result = first_letter_absorption(sae, engine, {.seed = o.probe.seed}, context.control);
    json["absorption"] = result.to_json();
    if (!context.json) print_absorption(result);
  }
}

void evaluate_verb(const Context& context, const EvalArguments& o) {
  const auto sae = Sae::load(o.sae);
  const Loaded loaded = load_for_study(o.corpus.model, o.corpus.dtype);
  std::vector<LabelledText> texts;
  if (!o.no_probe) texts = load_labelled_texts(o.probe_file);  // what is wrong with it is said before the work
  const auto documents = read_documents(o.corpus, *loaded.tokenizer, o.context);
  SaeBreakdown breakdown;
  const SaeEvaluation evaluation = evaluate_sae(*sae, *loaded.engine, documents, context.control, &breakdown);
  Json json = evaluation.to_json();
  Table rows;
  for (const auto& [key, value] : json.members()) {
    rows.push_back({key, value.is_int() ? value.dump() : format_number(value.as_double(), 4)});
  }
  const Json more = breakdown.to_json();
  for (const auto& [key, value] : more.members()) json[key] = value;
  if (!context.json) {
    print_line(format_table(rows));
    print_breakdown(breakdown);
  }
  probe_and_absorb(context, o, texts, *sae, *loaded.engine, json);
  if (context.json) print_json(json);
}

}  // namespace

void add_sae_eval(CLI::App& sae, Context& context) {
  auto o = std::make_shared<EvalArguments>();
  CLI::App* verb = add_verb(sae, context, "eval",
                            "Fidelity on held-out text by type of token, what it costs the model, probes, absorption");
  verb->add_option("sae", o->sae, "SAE folder or file")->required();
  add_corpus_flags(verb, o->corpus);
  verb->add_option("--context", o->context, "tokens a document is cut to")->capture_default_str();
  verb->add_option("--probe", o->probe_file,
                   "JSON lines {text, label} to probe for; default: which instruction a prompt holds");
  add_options(verb, o->probe);
  verb->add_flag("--no-probe", o->no_probe, "leave sparse probing out");
  verb->add_flag("--no-absorption", o->no_absorption, "leave the first-letter check out");
  verb->callback([o, &context] { evaluate_verb(context, *o); });
}

}  // namespace saif::cli
