// Sections of words: claims, examples, the manifest; and what all sections share.
#include "report/sections.h"
#include "report/style.h"
#include "report/values.h"

namespace saif::report {
namespace {

std::string_view verdict_style(std::string_view verdict) {
  if (verdict == "confirmed") return "badge good";
  if (verdict == "not confirmed") return "badge bad";
  return "badge fine";
}

std::string shortened(const std::string& hash) { return hash.size() > 16 ? hash.substr(0, 16) + "…" : hash; }

void origin_row(Html& page, std::string_view what, const Json& entry) {
  const std::string hash = text(entry, "sha256", kAbsent);
  page.open("tr").element("th", what, {{"scope", "row"}});
  page.element("td", text(entry, "name", text(entry, "site", kAbsent)), {{"class", "l"}});
  page.element("td", text(entry, "dtype", kAbsent), {{"class", "l"}});
  page.open("td", {{"class", "l"}}).element("code", shortened(hash), {{"title", hash}}).close().close().line();
}

}  // namespace

std::string title_of(const Json& entry) { return text(entry, "title", text(entry, "task", "?")); }

void open_section(Html& page, const std::string& id, std::string_view title, std::string_view lead) {
  page.open("section", {{"id", id}}).element("h2", title);
  if (!lead.empty()) page.element("p", lead, {{"class", "lead"}});
  page.line();
}

void open_table(Html& page, std::string_view label, const std::vector<Column>& columns) {
  page.open("div", {{"class", "table"}, {"tabindex", "0"}, {"role", "region"}, {"aria-label", std::string(label)}});
  page.open("table").open("thead").open("tr");
  for (const Column& c : columns) page.element("th", c.title, {{"scope", "col"}, {"class", c.left ? "l" : ""}});
  page.close().close().open("tbody").line();
}

void close_table(Html& page) { page.close().close().close().line(); }

void claims_section(Html& page, const Json& report) {
  if (list(report, "claims").empty()) return;
  open_section(page, "claims", "Claims, tested", "What was said about the method, and what these measurements say.");
  page.open("div", {{"class", "claims card"}});
  for (const Json& claim : list(report, "claims")) {
    const std::string verdict = text(claim, "verdict", "mixed");
    page.open("div", {{"class", "claim"}}).open("div");
    page.element("span", verdict, {{"class", std::string(verdict_style(verdict))}}).close();
    page.open("div").open("p").element("strong", text(claim, "claim")).close();
    const std::string evidence = text(claim, "evidence");
    if (!evidence.empty()) page.element("p", evidence, {{"class", "dim"}});
    page.close().close().line();
  }
  page.close().close().line();
}

void examples_section(Html& page, const Json& report) {
  if (list(report, "examples").empty()) return;
  open_section(
      page, "examples", "The same prompt, several ways",
      "One prompt per task, chosen to show a difference where there is one: no average. The prompt itself never "
      "mentions the instruction.");
  for (const Json& example : list(report, "examples")) {
    page.element("h3", title_of(example));
    page.open("p", {{"class", "prompt"}}).element("span", "Prompt: ", {{"class", "dim"}});
    page.element("bdi", text(example, "prompt")).close();
    page.open("div", {{"class", "answers"}});
    for (const Json& answer : list(example, "answers")) {
      const bool strict = truth(answer, "strict");
      page.open("article", {{"class", "answer card"}}).open("h4").element("span", text(answer, "label"));
      if (answer.contains("strict")) {
        page.element("span", strict ? "✓ follows" : "✗ does not", {{"class", strict ? "good" : "bad"}});
      }
      const std::string said = text(answer, "text");
      page.close().element("p", said.empty() ? "(empty answer)" : said, {{"class", "said"}, {"dir", "auto"}});
      page.close().line();
    }
    page.close().line();
  }
  page.close().line();
}

void manifest_section(Html& page, const Json& report) {
  const Json* manifest = report.find("manifest");
  if (!manifest || manifest->size() == 0) return;
  open_section(page, "manifest", "How to get the same numbers",
               "Model, dictionaries, options and seed. Equal hashes and options give equal numbers.");
  if (manifest->is_object() && (manifest->contains("model") || manifest->contains("saes"))) {
    open_table(page, "Model and dictionaries",
               {{"", true}, {"name or site", true}, {"dtype", true}, {"SHA-256", true}});
    if (const Json* model = manifest->find("model")) origin_row(page, "model", *model);
    for (const Json& sae : list(*manifest, "saes")) origin_row(page, "SAE", sae);
    close_table(page);
  }
  page.open("details", {{"open", "open"}}).element("summary", "The whole manifest");
  page.element("pre", manifest->dump(2), {{"class", "card"}});
  page.close().close().line();
}

}  // namespace saif::report
