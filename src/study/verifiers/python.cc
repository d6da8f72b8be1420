// An answer that is Python: in a fence (a lead-in may stand before it, anything after), or else as a whole. Each
// statement must have the shape of one; expressions are checked for the alternation of operands and operators, which
// no prose has, and not for meaning. What prose and Python share is refused: bare names ("Conclusion"), bare
// annotations at top level ("Answer: 42"), calls with a space before the bracket ("Bees (insects)"), one-word
// statements and returns outside a block. A cut-off last statement is forgiven, and counts when it is a valid
// beginning.
#include <algorithm>
#include <array>
#include <set>
#include <span>

#include "saif/options.h"
#include "study/text_units.h"
#include "study/verifiers/make.h"
#include "study/verifiers/python_tokens.h"

namespace saif {
namespace {

using Token = PythonToken;
using Tokens = std::span<const PythonToken>;

template <size_t kSize>
bool one_of(std::string_view text, const std::array<std::string_view, kSize>& set) {
  return std::find(set.begin(), set.end(), text) != set.end();
}

constexpr std::array<std::string_view, 31> kKeywords = {
    "and",      "as",     "assert",  "async", "await", "break",  "class", "continue", "def", "del", "elif",
    "else",     "except", "finally", "for",   "from",  "global", "if",    "import",   "in",  "is",  "lambda",
    "nonlocal", "not",    "or",      "pass",  "raise", "return", "try",   "while",    "with"};
constexpr std::array<std::string_view, 8> kInfixWords = {"and", "or", "in", "is", "if", "else", "for", "as"};
constexpr std::array<std::string_view, 5> kPrefixWords = {"not", "await", "yield", "lambda", "async"};
constexpr std::array<std::string_view, 19> kInfix = {"+", "-", "*", "/", "%", "@",  "**", "//", "<<", ">>",
                                                     "&", "|", "^", "<", ">", "<=", ">=", "==", "!="};
constexpr std::array<std::string_view, 13> kAssigns = {
    "=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "@=", "**=", "//=", "<<="};

bool is_keyword(const Token& t) { return t.kind == Token::kName && one_of(t.text, kKeywords); }

// Whether tokens alternate operand, operator, operand, with brackets nested. `cut` accepts a valid beginning.
class ExpressionCheck {
 public:
  ExpressionCheck(Tokens tokens, bool cut) : tokens_(tokens), cut_(cut) {}
  bool accepts() {
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (!step(i)) return false;
    }
    return !tokens_.empty() && (cut_ || (open_.empty() && (after_operand_ || tokens_.back().text == ",")));
  }
  bool has_call() const { return has_call_; }

 private:
  bool step(size_t i) {
    const Token& t = tokens_[i];
    if (t.kind == Token::kNumber || t.kind == Token::kString) {
      const bool joined = after_operand_ && t.kind == Token::kString && i > 0 && tokens_[i - 1].kind == Token::kString;
      if (after_operand_ && !joined) return false;
      return after_operand_ = true;
    }
    if (t.kind == Token::kName) return step_name(i);
    return after_operand_ ? step_after_operand(i) : step_before_operand(i);
  }

  bool step_name(size_t i) {
    const std::string_view text = tokens_[i].text;
    const std::string_view before = i > 0 ? tokens_[i - 1].text : std::string_view();
    if (after_operand_) {
      if (text == "not") return i + 1 < tokens_.size() ? tokens_[i + 1].text == "in" && step_infix() : cut_;
      if (text == "async") return !open_.empty();
      return one_of(text, kInfixWords) && step_infix();
    }
    if (text == "in" && before == "not") return true;
    if (text == "for" && before == "async") return true;
    if (text == "from" && before == "yield") return true;
    if (text == "lambda") {
      ++lambdas_;
      return true;
    }
    if (one_of(text, kPrefixWords)) return true;
    if (is_keyword(tokens_[i])) return false;
    return after_operand_ = true;
  }

  bool step_infix() {
    after_operand_ = false;
    return true;
  }

  bool step_after_operand(size_t i) {
    const Token& t = tokens_[i];
    if (t.text == "(" || t.text == "[") {
      // A call or a subscript follows its operand at once, as no parenthesis in prose does.
      if (t.spaced || tokens_[i - 1].kind == Token::kNumber) return false;
      has_call_ = has_call_ || t.text == "(";
      open_.push_back(t.text[0]);
      return step_infix();
    }
    if (t.text == ")" || t.text == "]" || t.text == "}") return close();
    if (t.text == "." || one_of(t.text, kInfix) || t.text == ",") return step_infix();
    if (t.text == ":=") return !open_.empty() && step_infix();
    if (t.text == "=") return (!open_.empty() || lambdas_ > 0) && step_infix();
    if (t.text == ":") return take_colon();
    return false;
  }

  bool step_before_operand(size_t i) {
    const Token& t = tokens_[i];
    const std::string_view before = i > 0 ? tokens_[i - 1].text : std::string_view();
    if (t.text == "(" || t.text == "[" || t.text == "{") {
      if (before == ".") return false;
      open_.push_back(t.text[0]);
      return true;
    }
    const bool separated = before == "(" || before == "[" || before == "{" || before == "," || before == ":";
    if (t.text == ")" || t.text == "]" || t.text == "}") return separated && close();
    if (t.text == "-" || t.text == "+" || t.text == "~") return before != ".";
    if (t.text == "*" || t.text == "**") return i == 0 || separated || before == "lambda";
    if (t.text == "...") return after_operand_ = true;
    if (t.text == ":") return (before == "lambda" || (!open_.empty() && open_.back() == '[')) && take_colon();
    return false;
  }

  bool close() {
    if (open_.empty()) return false;
    open_.pop_back();
    return after_operand_ = true;
  }

  bool take_colon() {
    if (lambdas_ > 0) {
      --lambdas_;
    } else if (open_.empty() || open_.back() == '(') {
      return false;
    }
    return step_infix();
  }

  Tokens tokens_;
  bool cut_;
  bool after_operand_ = false, has_call_ = false;
  int lambdas_ = 0;
  std::string open_;
};

bool is_expression(Tokens tokens, bool cut) { return ExpressionCheck(tokens, cut).accepts(); }

// The index of the first token with one of these texts outside brackets; tokens.size() when there is none.
template <typename Predicate>
size_t find_where(Tokens tokens, Predicate predicate) {
  int depth = 0, lambdas = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::string_view t = tokens[i].kind == Token::kString ? std::string_view() : tokens[i].text;
    if (depth == 0 && !((t == ":" || t == "=") && lambdas > 0) && predicate(tokens[i])) return i;
    if (t == "(" || t == "[" || t == "{") ++depth;
    if (t == ")" || t == "]" || t == "}") --depth;
    if (t == "lambda") ++lambdas;
    if (t == ":" && depth == 0 && lambdas > 0) --lambdas;
  }
  return tokens.size();
}

size_t find_outside(Tokens tokens, std::string_view text) {
  return find_where(tokens, [&](const Token& t) { return t.kind != Token::kString && t.text == text; });
}

bool is_name(const Token& t) { return t.kind == Token::kName && !is_keyword(t); }

// "a.b as c, d" of an import.
bool is_import_list(Tokens tokens, bool cut) {
  bool want_name = true;
  for (const Token& t : tokens) {
    const bool joins = t.text == "." || t.text == "," || t.text == "as" || t.text == "*";
    if (t.text == "(" || t.text == ")") continue;
    if (want_name ? !(is_name(t) || t.text == "*") : !joins) return false;
    want_name = !want_name;
  }
  return !tokens.empty() && (cut || !want_name || tokens.back().text == ")");
}

bool is_simple_keyword_statement(Tokens tokens, bool cut, bool in_block) {
  const std::string_view head = tokens[0].text;
  const Tokens rest = tokens.subspan(1);
  if (head == "import") return is_import_list(rest, cut);
  if (head == "from") {
    const size_t import = find_outside(rest, "import");
    size_t dots = 0;
    while (dots < rest.size() && (rest[dots].text == "." || rest[dots].text == "...")) ++dots;
    if (import == rest.size()) return cut && (dots == rest.size() || is_import_list(rest.subspan(dots), true));
    const bool source = dots == import || is_import_list(rest.subspan(dots, import - dots), false);
    return import > 0 && source &&
           (is_import_list(rest.subspan(import + 1), cut) || (cut && import + 1 == rest.size()));
  }
  if (head == "pass" || head == "break" || head == "continue") return in_block && rest.empty();
  if (head == "return" || head == "yield") return in_block && (rest.empty() || is_expression(rest, cut));
  if (head == "global" || head == "nonlocal") return in_block && is_import_list(rest, cut);
  if (head == "del" || head == "assert") return is_expression(rest, cut) && (cut || rest[0].text != "in");
  if (head == "raise") {
    const size_t from = find_outside(rest, "from");
    return rest.empty() ? in_block : is_expression(rest.first(from), cut);
  }
  return false;
}

// An assignment, or an expression that does something: a call, await, yield, or a string as documentation in a block.
bool is_plain_statement(Tokens tokens, bool cut, bool in_block) {
  const auto is_assign = [](const Token& t) { return t.kind == Token::kOperator && one_of(t.text, kAssigns); };
  const size_t assign = find_where(tokens, is_assign), colon = find_outside(tokens, ":");
  if (colon < assign) {
    const Tokens type = tokens.subspan(colon + 1, assign - colon - 1);
    const bool typed = is_expression(tokens.first(colon), false) && (is_expression(type, cut) || (cut && type.empty()));
    if (!typed || (assign == tokens.size() && !in_block)) return false;
    return assign == tokens.size() || is_expression(tokens.subspan(assign + 1), cut);
  }
  if (assign < tokens.size()) {
    Tokens left = tokens.first(assign), rest = tokens.subspan(assign + 1);
    if (!is_expression(left, false) ||
        !(is_name(left[0]) || left[0].text == "(" || left[0].text == "[" || left[0].text == "*")) {
      return false;
    }
    const size_t again = find_outside(rest, "=");
    if (again < rest.size())
      return is_expression(rest.first(again), false) && is_expression(rest.subspan(again + 1), cut);
    return is_expression(rest, cut) || (cut && rest.empty());
  }
  ExpressionCheck check(tokens, cut);
  if (!check.accepts()) return false;
  const bool documents =
      std::all_of(tokens.begin(), tokens.end(), [](const Token& t) { return t.kind == Token::kString; });
  const bool triple = documents && (tokens[0].text.starts_with("\"\"\"") || tokens[0].text.starts_with("'''"));
  return check.has_call() || (documents && (in_block || triple)) || tokens[0].text == "await" ||
         tokens[0].text == "yield" || (in_block && tokens[0].text == "...");
}

bool is_block_head(Tokens head, bool cut) {
  const std::string_view word = head[0].text;
  const Tokens rest = head.subspan(1);
  if (word == "try" || word == "finally" || word == "else") return rest.empty();
  if (word == "def" || word == "class") {
    if (rest.empty() || !is_name(rest[0])) return false;
    if (rest.size() == 1) return word == "class" || cut;
    if (rest[1].text != "(") return false;
    return cut || rest.back().text == ")" || find_outside(rest, "->") < rest.size();
  }
  if (word == "for") {
    const size_t in = find_outside(rest, "in");
    if (in == rest.size()) return cut && is_expression(rest, true);
    return in > 0 && is_expression(rest.first(in), false) &&
           (is_expression(rest.subspan(in + 1), cut) || (cut && in + 1 == rest.size()));
  }
  if (word == "except" && (rest.empty() || (rest.size() > 1 && rest[0].text == "*"))) return true;
  return is_expression(rest, cut);
}

constexpr std::array<std::string_view, 13> kBlockWords = {"if",  "elif",   "else",    "for",  "while", "def", "class",
                                                          "try", "except", "finally", "with", "match", "case"};

struct StatementShape {
  bool valid = false, opens_block = false;
};

StatementShape shape_of(const PythonLine& line, bool in_block) {
  Tokens tokens(line.tokens);
  if (tokens[0].text == "async" && tokens.size() > 1) tokens = tokens.subspan(1);
  const std::string_view head = tokens[0].text;
  if (tokens[0].kind == Token::kOperator && head == "@") return {is_expression(tokens.subspan(1), line.cut), false};
  const bool soft = head == "match" || head == "case";
  if (tokens[0].kind == Token::kName && one_of(head, kBlockWords)) {
    const size_t colon = find_outside(tokens, ":");
    if (colon < tokens.size() && is_block_head(tokens.first(colon), false)) {
      const Tokens body = tokens.subspan(colon + 1);
      if (body.empty()) return {true, true};
      if (!soft)
        return {is_simple_keyword_statement(body, line.cut, true) || is_plain_statement(body, line.cut, true), false};
    }
    if (!soft) return {line.cut && colon == tokens.size() && tokens.size() > 1 && is_block_head(tokens, true), false};
  }
  if (is_keyword(tokens[0]) || head == "yield") {
    if (is_simple_keyword_statement(tokens, line.cut, in_block)) return {true, false};
    if (head != "await" && head != "not" && head != "lambda") return {false, false};
  }
  return {is_plain_statement(tokens, line.cut, in_block), false};
}

std::string spelling(const PythonLine& line) {
  std::string out;
  for (const PythonToken& t : line.tokens) out.append(t.text).push_back(' ');
  return out;
}

// Two different statements or more, each valid, blocks indented and closed as Python wants.
bool is_python(std::string_view source) {
  const std::optional<std::vector<PythonLine>> lines = python_lines(source);
  if (!lines || lines->empty()) return false;
  std::set<std::string> different;
  std::vector<int> indents = {lines->front().indent};
  bool want_block = false;
  for (size_t i = 0; i < lines->size(); ++i) {
    const PythonLine& line = (*lines)[i];
    const bool last = i + 1 == lines->size() && line.cut;
    if (want_block ? line.indent <= indents.back() : line.indent > indents.back()) return last && different.size() > 1;
    if (want_block) indents.push_back(line.indent);
    while (indents.size() > 1 && line.indent < indents.back()) indents.pop_back();
    if (line.indent != indents.back()) return last && different.size() > 1;
    const StatementShape shape = shape_of(line, indents.size() > 1);
    if (!shape.valid) return last && different.size() > 1;
    different.insert(spelling(line));
    want_block = shape.opens_block;
  }
  return different.size() > 1;
}

// The text of the first fence that is Python's or unnamed; the whole answer where there is no fence.
std::string_view code_of(std::string_view answer) {
  const size_t fence = answer.find("```");
  if (fence == std::string_view::npos) return answer;
  std::string_view code = answer.substr(fence + 3);
  const size_t line_end = code.find('\n');
  if (line_end == std::string_view::npos) return {};
  const std::string name = lower_ascii(trim(code.substr(0, line_end)));
  if (!name.empty() && name != "python" && name != "py" && name != "python3") return {};
  code.remove_prefix(line_end + 1);
  const size_t close = code.find("```");
  // A closed fence ends its last line even without a line break before it.
  if (close != std::string_view::npos) return code.substr(0, close);
  while (code.ends_with('`')) code.remove_suffix(1);
  return code;
}

class PythonVerifier : public Verifier {
 public:
  bool passes(std::string_view answer) const override { return is_python(code_of(answer)); }
};

struct NoArgs {
  template <typename V>
  void describe(V&) {}
};

}  // namespace

VerifierPointer make_python_verifier(const Json& args) {
  options_from_json<NoArgs>(args, "arguments of verifier 'python'");
  return std::make_unique<PythonVerifier>();
}

}  // namespace saif
