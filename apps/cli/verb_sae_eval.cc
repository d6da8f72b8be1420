// saif sae eval: how good an SAE is on held-out text.
#include "sae_corpus.h"
#include "saif/sae.h"
#include "verbs.h"

namespace saif::cli {
namespace {

struct EvalArguments {
  CorpusOptions corpus;
  std::string sae;
  int64_t context = 256;
};

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

void evaluate_verb(const Context& context, const EvalArguments& o) {
  const auto sae = Sae::load(o.sae);
  const Loaded loaded = load_engine(o.corpus.model, o.corpus.dtype);
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
  if (context.json) return print_json(json);
  print_line(format_table(rows));
  print_breakdown(breakdown);
}

}  // namespace

void add_sae_eval(CLI::App& sae, Context& context) {
  auto o = std::make_shared<EvalArguments>();
  CLI::App* verb = add_verb(sae, context, "eval", "Fidelity on held-out text, and what it costs the model");
  verb->add_option("sae", o->sae, "SAE folder or file")->required();
  add_corpus_flags(verb, o->corpus);
  verb->add_option("--context", o->context, "tokens a document is cut to")->capture_default_str();
  verb->callback([o, &context] { evaluate_verb(context, *o); });
}

}  // namespace saif::cli
