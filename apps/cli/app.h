// What all verbs share: flags, progress, errors. One file per verb registers itself in the table of main.cc.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "saif/control.h"
#include "saif/engine.h"
#include "saif/json.h"
#include "saif/options.h"

namespace saif::cli {

// Wrong usage found after parsing: exit code 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Context {
  bool json = false, quiet = false;
  int threads = 0;
  int64_t seed = 0;
  Control control;  // stopped by Ctrl-C; progress goes to stderr unless --quiet
};

// Adds a verb with the flags every verb has.
CLI::App* add_verb(CLI::App& root, Context& context, const std::string& name, const std::string& description,
                   bool json_flag = true);

// Feeds an options struct's description to a verb as --flags with defaults.
class FlagVisitor {
 public:
  // Names in `skip` are left out.
  explicit FlagVisitor(CLI::App* verb, std::vector<std::string> skip = {}) : verb_(verb), skip_(std::move(skip)) {}
  void operator()(const char* name, bool& value, const char* help) {
    if (!skipped(name)) verb_->add_flag(flag(name), value, help);
  }
  template <typename T>
  void operator()(const char* name, T& value, const char* help) {
    if (!skipped(name)) verb_->add_option(flag(name), value, help)->capture_default_str();
  }
  template <typename T>
  void operator()(const char* name, std::vector<T>& value, const char* help) {
    if (!skipped(name)) verb_->add_option(flag(name), value, help)->delimiter(',')->capture_default_str();
  }

 private:
  static std::string flag(std::string name);
  bool skipped(const std::string& name) const;
  CLI::App* verb_;
  std::vector<std::string> skip_;
};

template <typename Options>
void add_options(CLI::App* verb, Options& options, std::vector<std::string> skip = {}) {
  FlagVisitor visitor(verb, std::move(skip));
  options.describe(visitor);
}

// A model, its tokenizer and an engine.
struct Loaded {
  std::shared_ptr<const Model> model;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<Engine> engine;
};
Loaded load_engine(const std::string& model, const LoadOptions& options = {});
Loaded load_for_study(const std::string& model, const std::string& dtype);  // for many rows at a time
void add_dtype_flag(CLI::App* verb, std::string& dtype);
void add_load_flags(CLI::App* verb, LoadOptions& options);  // all of them

void say(const Context& context, const std::string& line);  // stderr, unless --quiet
void print_line(const std::string& line);                   // stdout; throws Error{kIo} when it cannot be written
void print_json(const Json& json);                          // one compact line on stdout
std::string format_number(double value, int decimals);
std::string format_table(const std::vector<std::vector<std::string>>& rows);  // first row: heads; numbers to the right

struct FilePrompt {
  std::string text;
  std::vector<int32_t> ids;  // where the line gives token ids in place of a text
};
// Lines of a text file, or the "prompt", "text" or "ids" members of a .jsonl file. Throws Error naming file and line.
std::vector<FilePrompt> read_prompts_or_ids(const std::string& path);
std::vector<std::string> read_prompts(const std::string& path);  // the same, texts only
int32_t token_id(const Json& id, const std::string& where);      // throws Error naming the place and the value
// "1,2,3"; the error speaks of `flag`.
std::vector<int32_t> parse_ids(const std::string& text, const std::string& flag = "--ids");
// One text after each use of the flag, word for word: CLI11 would take "[a,b]" for a list.
void add_texts(CLI::App* verb, const std::string& flags, std::vector<std::string>& texts, const std::string& help);

}  // namespace saif::cli
