#include <fstream>

#include "saif/text.h"
#include "verbs.h"

namespace saif::cli {
namespace {

struct Options {
  std::string model, text, file, separator;
  bool no_special = false;
};

Json tokens_of(const Tokenizer& tokenizer, const std::string& text, const Options& o, bool with_pieces) {
  const std::vector<int32_t> ids = tokenizer.encode(text, {.add_special = !o.no_special, .parse_special = false});
  Json out = Json::object({{"ids", ids}});
  if (with_pieces) {
    Json pieces = Json::array();
    for (const int32_t id : ids) pieces.push_back(tokenizer.piece(id));
    out["pieces"] = pieces;
  }
  return out;
}

void tokenize_file(const Tokenizer& tokenizer, const Options& o) {
  std::ifstream in(o.file, std::ios::binary);
  if (!in) throw Error(Errc::kNotFound, o.file + ": cannot open");
  std::string line, text;
  bool first = true;
  while (std::getline(in, line)) {
    if (o.separator.empty()) {
      print_json(tokens_of(tokenizer, line, o, false));
    } else if (line == o.separator) {
      print_json(tokens_of(tokenizer, text, o, false));
      text.clear();
      first = true;
    } else {
      text += (first ? "" : "\n") + line;
      first = false;
    }
  }
  if (!o.separator.empty() && !(first && text.empty())) print_json(tokens_of(tokenizer, text, o, false));
}

void tokenize(const Context& context, const Options& o, bool has_text) {
  if (has_text == !o.file.empty()) throw UsageError("tokenize: give either --text or --file");
  const auto tokenizer = Tokenizer::load(resolve_model(o.model));
  if (!has_text) return tokenize_file(*tokenizer, o);
  const Json tokens = tokens_of(*tokenizer, o.text, o, true);
  if (context.json) return print_json(tokens);
  std::vector<std::vector<std::string>> rows = {{"id", "piece"}};
  for (size_t i = 0; i < tokens.at("ids").size(); ++i) {
    rows.push_back({tokens.at("ids")[i].dump(), tokens.at("pieces")[i].as_string()});
  }
  print_line(format_table(rows));
}

}  // namespace

void add_tokenize(CLI::App& root, Context& context) {
  auto o = std::make_shared<Options>();
  CLI::App* verb = add_verb(root, context, "tokenize", "Text to token ids");
  verb->add_option("model", o->model, "folder, .gguf file or short name")->required();
  CLI::Option* text = verb->add_option("--text", o->text, "the text");
  verb->add_option("--file", o->file, "each line is a text");
  verb->add_option("--separator", o->separator, "with --file: a line holding only this ends a text");
  verb->add_flag("--no-special", o->no_special, "add no BOS or other special tokens");
  verb->callback([o, text, &context] { tokenize(context, *o, text->count() > 0); });
}

}  // namespace saif::cli
