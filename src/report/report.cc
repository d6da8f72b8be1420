// The page: one HTML file that loads nothing. Its policy forbids scripts and loads even if text got past the escaping.
#include "base/file.h"
#include "report/html.h"
#include "report/sections.h"
#include "report/style.h"
#include "report/values.h"
#include "saif/sweep.h"

namespace saif {
namespace report {
namespace {

struct Section {
  const char* key;   // of the report's JSON
  const char* id;    // of the page
  const char* name;  // in the navigation
  void (*write)(Html&, const Json&);
};

constexpr Section kSections[] = {
    {"tasks", "success", "Success", tasks_section},
    {"claims", "claims", "Claims", claims_section},
    {"examples", "examples", "Examples", examples_section},
    {"sweep", "sweep", "Search", sweep_section},
    {"placement", "placement", "Placement", placement_section},
    {"latents", "latents", "Latents", latents_section},
    {"training", "training", "Dictionaries", training_section},
    {"manifest", "manifest", "Manifest", manifest_section},
};

void head(Html& page, const std::string& title) {
  page.open("head").leaf("meta", {{"charset", "utf-8"}});
  page.leaf("meta", {{"name", "viewport"}, {"content", "width=device-width, initial-scale=1"}});
  page.leaf("meta",
            {{"http-equiv", "Content-Security-Policy"}, {"content", "default-src 'none'; style-src 'unsafe-inline'"}});
  page.leaf("meta", {{"name", "referrer"}, {"content", "no-referrer"}});
  page.element("title", title).open("style").raw(page_style()).close().close().line();
}

std::string page_of(const Json& report) {
  const std::string title = text(report, "title", "saif report");
  Html page;
  page.raw("<!DOCTYPE html>\n").open("html", {{"lang", "en"}});
  head(page, title);
  page.open("body").open("header").element("h1", title);
  const std::string subtitle = text(report, "subtitle");
  if (!subtitle.empty()) page.element("p", subtitle, {{"class", "subtitle"}});
  page.open("nav", {{"aria-label", "Sections"}});
  for (const Section& s : kSections) {
    const Json* section = report.find(s.key);
    if (section && section->size() > 0) page.element("a", s.name, {{"href", std::string("#") + s.id}}).raw(" ");
  }
  page.close().close().line().open("main");
  for (const Section& s : kSections) s.write(page, report);
  page.close().open("footer").element("p", "Written by saif. This file loads nothing and runs no script.");
  return page.finish() + "\n";
}

}  // namespace
}  // namespace report

void write_report(const std::string& path, const Json& report) {
  if (!report.is_object()) throw Error(Errc::kBadFormat, path + ": a report is a JSON object (docs/report.md)");
  write_file_atomically(path, report::page_of(report));
}

void write_success_plot(const std::string& path, const Json& report) {
  write_file_atomically(path, success_plot_svg(report));
}

}  // namespace saif
