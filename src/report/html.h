// Markup for the report. Everything that reaches the page as text goes through escape(): answers of a model, prompts
// and paths are not trusted.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace saif::report {

// Text for element content and double-quoted attributes of HTML and XML: &, <, >, quotes as references; control
// characters other than tab and newline as their pictures (U+2400...); CR LF and CR as LF; invalid UTF-8, C1 controls
// and noncharacters as U+FFFD.
std::string escape(std::string_view text);

// A token as a reader can see it: a space as U+00B7, a line break as U+21B5, a tab as U+21E5.
std::string visible_token(std::string_view token);

struct Attribute {
  std::string_view name;  // a literal of this program
  std::string value;      // escaped when written; empty: the attribute is left out
};

// A tree of elements written from front to back, balanced by construction: finish() closes what is open. Tags and
// attribute names are literals of this program.
class Html {
 public:
  Html& open(std::string_view tag, std::initializer_list<Attribute> attributes = {});
  Html& close();  // the innermost open element
  Html& text(std::string_view text);
  Html& element(std::string_view tag, std::string_view content, std::initializer_list<Attribute> attributes = {});
  Html& leaf(std::string_view tag, std::initializer_list<Attribute> attributes = {});  // <tag .../>
  Html& raw(std::string_view markup);                                                  // markup of this program only
  Html& line();                                                                        // a line break in the source
  std::string finish();

 private:
  void start(std::string_view tag, std::initializer_list<Attribute> attributes);
  std::string out_;
  std::vector<std::string_view> open_;
};

}  // namespace saif::report
