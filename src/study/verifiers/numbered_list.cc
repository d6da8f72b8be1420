// Items "1.", "2.", ... or "1)", "2)", ... each on its own line, counting up by one from 1, with different texts.
// Other lines (a lead-in, an item's second line) are ignored; an item without text counts only as cut off at the end.
#include <algorithm>
#include <set>

#include "saif/error.h"
#include "saif/options.h"
#include "study/verifiers/lists.h"
#include "study/verifiers/make.h"

namespace saif {
namespace {

struct ListArgs {
  int64_t min_items = 2;
  template <typename V>
  void describe(V& v) {
    v("min_items", min_items, "different items at least");
  }
};

class NumberedListVerifier : public Verifier {
 public:
  explicit NumberedListVerifier(int64_t min_items) : min_items_(min_items) {}
  bool passes(std::string_view answer) const override {
    std::set<std::vector<std::u32string>> items;
    int64_t next = 1;
    bool ended = false;
    for (const std::string_view line : filled_lines(answer)) {
      const std::optional<NumberedLine> item = numbered_line(line);
      if (!item) continue;
      if (ended || item->number != next++) return false;
      const bool has_letter = std::any_of(item->text.begin(), item->text.end(), [](char c) {
        return static_cast<unsigned char>(c) >= 0x80 || std::isalnum(static_cast<unsigned char>(c)) != 0;
      });
      if (has_letter) {
        items.insert(words_of(item->text));
      } else {
        ended = true;  // only the cut-off end may be empty
      }
    }
    return static_cast<int64_t>(items.size()) >= min_items_;
  }

 private:
  int64_t min_items_;
};

}  // namespace

VerifierPointer make_numbered_list_verifier(const Json& args) {
  const auto options = options_from_json<ListArgs>(args, "arguments of verifier 'numbered_list'");
  if (options.min_items < 1) {
    throw Error(Errc::kInvalidArgument, "verifier 'numbered_list': found min_items = " +
                                            std::to_string(options.min_items) + ", expected 1 or more");
  }
  return std::make_unique<NumberedListVerifier>(options.min_items);
}

}  // namespace saif
