#include "sae_corpus.h"

namespace saif::cli {

std::vector<std::vector<int32_t>> read_documents(const CorpusOptions& o, const Tokenizer& tokenizer, int64_t context) {
  std::vector<std::vector<int32_t>> documents;
  for (const std::string& text : read_prompts(o.corpus)) {
    // Documents are the model's own transcripts: chat markers in them are markers.
    std::vector<int32_t> ids = tokenizer.encode(text, {.add_special = true, .parse_special = true});
    if (static_cast<int64_t>(ids.size()) > context) ids.resize(static_cast<size_t>(context));
    if (ids.size() >= 2) documents.push_back(std::move(ids));
    if (o.documents > 0 && static_cast<int64_t>(documents.size()) >= o.documents) break;
  }
  if (documents.empty()) throw Error(Errc::kInvalidArgument, o.corpus + ": holds no document of two tokens or more");
  return documents;
}

void add_corpus_flags(CLI::App* verb, CorpusOptions& o) {
  verb->add_option("--model", o.model, "folder, .gguf file or short name")->capture_default_str();
  verb->add_option("--corpus", o.corpus, "a document per line, or JSON lines with \"text\"")->required();
  verb->add_option("--documents", o.documents, "use the first N documents; 0 is all")->capture_default_str();
  add_dtype_flag(verb, o.dtype);
}

}  // namespace saif::cli
