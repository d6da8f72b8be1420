#include "base/file.h"
#include "report/html.h"
#include "saif/sweep.h"

namespace saif {

void write_report(const std::string& path, const Json& report) {
  report::Html page;
  page.raw("<!doctype html>\n").open("html").element("pre", report.dump(1));
  write_file_atomically(path, page.finish());
}

}  // namespace saif
