#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <string>
#include <vector>

#include "base/file.h"
#include "report/html.h"
#include "report/sections.h"
#include "report/values.h"
#include "saif/sweep.h"

namespace saif {
namespace {

class TempFolder {
 public:
  TempFolder()
      : path_(testing::TempDir() + "saif_report_" + std::to_string(::getpid()) + "_" + std::to_string(++count)) {
    std::filesystem::create_directories(path_);
  }
  ~TempFolder() {
    std::error_code ec;
    std::filesystem::permissions(path_, std::filesystem::perms::owner_all, ec);
    std::filesystem::remove_all(path_, ec);
  }
  const std::string& path() const { return path_; }

 private:
  static inline int count = 0;
  std::string path_;
};

// What is wrong with the nesting of a page's elements; empty when nothing is. Elements of this program's pages are
// closed or end with "/>"; a stray '<' in text is a mistake.
std::string nesting_problem(const std::string& page) {
  std::vector<std::string> open;
  for (size_t i = page.find('<'); i != std::string::npos; i = page.find('<', i + 1)) {
    if (page.compare(i, 2, "<!") == 0) continue;
    const size_t end = page.find('>', i);
    if (end == std::string::npos) return "unfinished tag at " + std::to_string(i);
    const std::string inside = page.substr(i + 1, end - i - 1);
    if (inside.find('<') != std::string::npos) return "'<' within a tag: " + inside;
    const size_t quotes = static_cast<size_t>(std::count(inside.begin(), inside.end(), '"'));
    if (quotes % 2 != 0) return "odd quotes: " + inside;
    const bool closing = inside[0] == '/';
    const size_t from = closing ? 1 : 0;
    const std::string tag = inside.substr(from, inside.find_first_of(" />", from) - from);
    if (tag.empty() || !std::isalpha(static_cast<unsigned char>(tag[0]))) return "no tag: <" + inside;
    if (inside.back() == '/') continue;
    if (!closing) {
      open.push_back(tag);
    } else {
      if (open.empty() || open.back() != tag)
        return "</" + tag + "> closes " + (open.empty() ? "nothing" : open.back());
      open.pop_back();
    }
  }
  return open.empty() ? "" : open.back() + " is not closed";
}

std::string page_of(const Json& report) {
  const TempFolder folder;
  write_report(folder.path() + "/report.html", report);
  return read_file(folder.path() + "/report.html");
}

bool has(const std::string& page, const std::string& what) { return page.find(what) != std::string::npos; }

size_t times(const std::string& page, const std::string& what) {
  size_t n = 0;
  for (size_t i = page.find(what); i != std::string::npos; i = page.find(what, i + what.size())) ++n;
  return n;
}

Json ci(double low, double high) { return Json(std::vector<double>{low, high}); }

Json row(const std::string& method, double strict, const Json& interval, double p) {
  Json out = Json::object({{"method", method}, {"layer", 24}, {"k", 15}, {"beta", 0.5}, {"scale", 1.25}, {"n", 137}});
  out["checker"] = 0.951;
  out["strict"] = strict;
  out["strict_ci"] = interval;
  out["loose"] = 0.963;
  out["quality"] = 0.871;
  out["perplexity"] = 12.34;
  out["repetition"] = 0.042;
  if (p >= 0) out["against_saif"] = Json::object({{"only_saif", 9}, {"only_this", 1}, {"mcnemar_p", p}});
  return out;
}

Json list_of(std::initializer_list<Json> items) { return Json(Json::Array(items)); }

Json task(std::initializer_list<Json> rows) {
  return Json::object({{"task", "french"}, {"title", "Answer in French"}, {"rows", list_of(rows)}});
}

Json cell(int layer, int k, double scale, double strict) {
  return Json::object(
      {{"method", "saif"}, {"layer", layer}, {"k", k}, {"beta", 1.0}, {"scale", scale}, {"strict", strict}});
}

// One report with every section; `text` stands wherever a text of others can stand.
Json full_report(const std::string& text) {
  const Json answer = Json::object({{"label", text}, {"text", text}, {"strict", true}});
  const Json latent = Json::object({{"index", 4711},
                                    {"sensitivity", 0.912},
                                    {"ci", ci(0.853, 0.957)},
                                    {"specificity", 0.787},
                                    {"mean", 6.543},
                                    {"density", 0.0123},
                                    {"flags", list_of({text})},
                                    {"top", list_of({Json::object({{"token", text}, {"logit", 1.5}})})}});
  Json tasks = list_of({task({row("none", 0.02, ci(0.01, 0.05), 0.0001), row("saif", 0.93, ci(0.86, 0.97), -1)})});
  tasks.items()[0]["title"] = text;
  const Json cells = list_of({cell(22, 1, 1.0, 0.31), cell(22, 15, 1.0, 0.72), cell(24, 15, 1.5, 0.64)});
  const Json placed = Json::object({{"label", text}, {"strict", 0.77}, {"strict_ci", ci(0.69, 0.83)}, {"n", 101}});
  return Json::object(
      {{"title", text},
       {"subtitle", text},
       {"tasks", tasks},
       {"claims", list_of({Json::object({{"claim", text}, {"verdict", text}, {"evidence", text}})})},
       {"examples", list_of({Json::object({{"title", text}, {"prompt", text}, {"answers", list_of({answer})}})})},
       {"sweep", list_of({Json::object({{"title", text}, {"cells", cells}})})},
       {"placement", list_of({Json::object({{"title", text}, {"rows", list_of({placed})}})})},
       {"latents", list_of({Json::object({{"title", text}, {"site", text}, {"latents", list_of({latent})}})})},
       {"training", list_of({Json::object({{"site", text}, {"l0", 31.9}, {"fvu", 0.123}, {"d_sae", 9216}})})},
       {"manifest", Json::object({{"model", Json::object({{"name", text}, {"sha256", "0123456789abcdef0123"}})},
                                  {"note", text}})}});
}

const char* const kSectionIds[] = {"success",   "claims",  "examples", "sweep",
                                   "placement", "latents", "training", "manifest"};

TEST(Escape, MarkupQuotesAndControlCharacters) {
  EXPECT_EQ(report::escape("<a href=\"x\" b='y'>&amp;"), "&lt;a href=&quot;x&quot; b=&#39;y&#39;&gt;&amp;amp;");
  EXPECT_EQ(report::escape("a\r\nb\rc\n\td"), "a\nb\nc\n\td");
  EXPECT_EQ(report::escape(std::string("a\0b\x1b[31m\x7f", 9)), "a␀b␛[31m␡");
  EXPECT_EQ(report::escape("é 你 😀"), "é 你 😀");
}

TEST(Escape, InvalidUtf8BecomesReplacementCharacters) {
  EXPECT_EQ(report::escape("a\xff"
                           "b"),
            "a\uFFFDb");
  EXPECT_EQ(report::escape("\xc3"), "\uFFFD");                          // cut short
  EXPECT_EQ(report::escape("\xc0\xbc"), "\uFFFD\uFFFD");                // '<' in two bytes
  EXPECT_EQ(report::escape("\xed\xa0\x80"), "\uFFFD\uFFFD\uFFFD");      // a surrogate
  EXPECT_EQ(report::escape("\xc3<"), "\uFFFD&lt;");                     // what follows is not swallowed
  EXPECT_EQ(report::escape("\xc2\x85|\xef\xbf\xbf"), "\uFFFD|\uFFFD");  // C1 control, noncharacter
  EXPECT_EQ(report::escape("\xf4\x90\x80\x80").find_first_not_of("\xef\xbf\xbd"), std::string::npos);  // > U+10FFFF
}

TEST(Html, IsBalancedByConstruction) {
  report::Html html;
  html.open("div", {{"class", "\"><script>"}, {"id", ""}}).element("p", "<b>").leaf("br");
  EXPECT_EQ(html.finish(), "<div class=\"&quot;&gt;&lt;script&gt;\"><p>&lt;b&gt;</p><br/></div>");
  EXPECT_THROW(html.close(), Error);
}

TEST(Values, NumbersAsText) {
  EXPECT_EQ(report::fixed(0.125, 2), "0.12");
  EXPECT_EQ(report::fixed(-0.001, 2), "0.00");
  EXPECT_EQ(report::short_number(1.25), "1.25");
  EXPECT_EQ(report::short_number(9216.0), "9216");
  EXPECT_EQ(report::p_text(0.0004), "< 0.001");
  EXPECT_EQ(report::p_text(0.0421), "0.042");
  EXPECT_FALSE(report::number(Json::object({{"x", "0.5"}}), "x"));
}

TEST(Report, EverySectionIsShownWhenPresentAndOnlyThen) {
  const Json full = full_report("text");
  const std::string all = page_of(full);
  EXPECT_EQ(nesting_problem(all), "");
  for (const char* id : kSectionIds) EXPECT_TRUE(has(all, std::string("<section id=\"") + id + "\"")) << id;
  const std::string none = page_of(Json::object({{"title", "only this"}}));
  EXPECT_EQ(nesting_problem(none), "");
  EXPECT_FALSE(has(none, "<section"));
  EXPECT_TRUE(has(none, "<h1>only this</h1>"));
  EXPECT_EQ(nesting_problem(page_of(Json::object())), "");
  for (const auto& [key, value] : full.members()) {
    if (value.is_string()) continue;
    const std::string page = page_of(Json::object({{key, value}}));
    EXPECT_EQ(nesting_problem(page), "") << key;
    EXPECT_EQ(times(page, "<section"), 1U) << key;
    Json rest = Json::object();
    for (const auto& [other, kept] : full.members()) {
      if (other != key) rest[other] = kept;
    }
    EXPECT_EQ(times(page_of(rest), "<section"), std::size(kSectionIds) - 1) << key;
  }
}

TEST(Report, HostileTextStaysText) {
  const std::string hostile =
      "</pre></style><script>alert(1)</script><img src=http://e.invalid/x onerror='y'>\"&\x01\xff";
  const std::string page = page_of(full_report(hostile));
  EXPECT_EQ(nesting_problem(page), "");
  EXPECT_FALSE(has(page, "<script"));
  EXPECT_FALSE(has(page, "<img"));
  EXPECT_FALSE(has(page, "\x01"));
  EXPECT_FALSE(has(page, "\xff"));
  EXPECT_TRUE(has(page, "&lt;script&gt;alert(1)&lt;/script&gt;"));
  EXPECT_EQ(nesting_problem(success_plot_svg(full_report(hostile))), "");
}

TEST(Report, AnswersKeepTheirNewlinesAndTokensShowTheirSpaces) {
  const std::string page = page_of(full_report(" one\n  two"));
  EXPECT_TRUE(has(page, "<p class=\"said\" dir=\"auto\"> one\n  two</p>"));
  EXPECT_TRUE(has(page, ">·one↵··two</span>"));
}

TEST(Report, LoadsNothing) {
  const std::string page = page_of(full_report("text"));
  for (const char* load :
       {"http:", "https:", "src=", "url(", "@import", "<link", "<script", "<iframe", "javascript:"}) {
    EXPECT_FALSE(has(page, load)) << load;
  }
  EXPECT_EQ(times(page, "href=\""), times(page, "href=\"#"));
  EXPECT_TRUE(has(page, "default-src &#39;none&#39;"));
}

TEST(Report, TablesHoldTheNumbersGiven) {
  const std::string page = page_of(full_report("text"));
  for (const char* cell_text : {"<td class=\"best\">0.93 [0.86, 0.97]</td>",
                                "<td>0.02 [0.01, 0.05]</td>",
                                "<td>137</td>",
                                "<td>0.95</td>",
                                "<td>0.96</td>",
                                "<td>0.87</td>",
                                "<td>12.3</td>",
                                "<td>0.04</td>",
                                "<td>&lt; 0.001</td>",  // tasks
                                "block 24, k 15, β 0.5, × 1.25",
                                "<td>101</td>",
                                "<td>0.77 [0.69, 0.83]</td>",  // placement
                                ">4711</th>",
                                "<td>0.91 [0.85, 0.96]</td>",
                                "<td>0.79</td>",
                                "<td>6.54</td>",
                                "<td>0.0123</td>",  // latents
                                "<td>9216</td>",
                                "<td>31.9</td>",
                                "<td>0.123</td>"}) {  // training
    EXPECT_TRUE(has(page, cell_text)) << cell_text;
  }
}

TEST(Report, HeatMapShowsTheBestOfEachCellAndWhatWasNotTried) {
  Json full = full_report("text");
  full["sweep"] = list_of(
      {Json::object({{"title", "t"},
                     {"cells", list_of({cell(22, 1, 1.0, 0.31), cell(22, 1, 2.0, 0.57), cell(24, 15, 1.5, 0.64)})}})});
  const std::string page = page_of(Json::object({{"sweep", full.at("sweep")}}));
  EXPECT_TRUE(has(page, ">0.57</text>"));
  EXPECT_FALSE(has(page, ">0.31</text>"));
  EXPECT_EQ(times(page, "class=\"heat\""), 2U);
  EXPECT_EQ(times(page, "class=\"hole\""), 2U);
  EXPECT_TRUE(has(page, "block 24, k 15"));
}

TEST(Report, DotsStandWhereTheirValuesAre) {
  const std::string svg = success_plot_svg(Json::object(
      {{"tasks", list_of({task({row("saif", 0.0, ci(0, 0.5), -1), row("random", 1.0, ci(0.5, 1), 1)})})}}));
  EXPECT_EQ(nesting_problem(svg), "");
  EXPECT_TRUE(has(svg, "<svg xmlns=\"http://www.w3.org/2000/svg\""));
  EXPECT_TRUE(has(svg, "<circle cx=\"229\""));                    // the left end of the axis
  EXPECT_TRUE(has(svg, "x1=\"229\" y1=\"113.5\" x2=\"582.5\""));  // 0 to 0.5 of 229 to 936
  EXPECT_TRUE(has(svg, "saif: 0.00 [0.00, 0.50]"));
}

TEST(Verdict, SaysWhoWinsAndWhetherByChance) {
  const Json none = Json();
  EXPECT_EQ(report::verdict_on(task({row("prompt", 0.7, none, 0.0004), row("saif", 0.9, none, -1)})),
            "Steering with saif (0.90) wins over prompted (0.70), beyond chance (p < 0.001).");
  EXPECT_EQ(report::verdict_on(task({row("prompt", 0.92, none, 0.3), row("saif", 0.9, none, -1)})),
            "Prompted (0.92) is ahead of saif (0.90), but within chance (p 0.300).");
  EXPECT_EQ(report::verdict_on(task({row("prompt", 0.9, none, 1), row("saif", 0.9, none, -1)})),
            "A tie: prompted (0.90) and saif (0.90).");
  EXPECT_EQ(report::verdict_on(task({row("prompt", 0.9, none, -1), row("none", 0.1, none, -1)})),
            "Prompted (0.90) is ahead of no instruction (0.10); the two were not compared prompt by prompt.");
  EXPECT_EQ(report::verdict_on(task({})), "No result.");
}

TEST(Report, SameInputSameBytes) { EXPECT_EQ(page_of(full_report("text")), page_of(full_report("text"))); }

std::string message_of(const std::string& path, const Json& json) {
  try {
    write_report(path, json);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(Report, ErrorsNameTheFileOrTheKey) {
  const TempFolder folder;
  EXPECT_TRUE(has(message_of(folder.path() + "/absent/report.html", Json::object()), "/absent/report.html"));
  EXPECT_TRUE(has(message_of(folder.path() + "/r.html", Json(3)), "JSON object"));
  EXPECT_TRUE(has(message_of(folder.path() + "/r.html", Json::object({{"tasks", 3}})), "\"tasks\""));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Report, AReadOnlyFolderIsNamed) {
  const TempFolder folder;
  if (::geteuid() == 0) GTEST_SKIP() << "root may write into read-only folders";
  ASSERT_EQ(::chmod(folder.path().c_str(), 0500), 0);
  EXPECT_TRUE(has(message_of(folder.path() + "/report.html", Json::object()), folder.path() + "/report.html"));
}

}  // namespace
}  // namespace saif
