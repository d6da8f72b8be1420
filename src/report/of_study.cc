#include "saif/sweep.h"

namespace saif {

Json report_of_study(const Study& study) {
  return Json::object({{"title", study.folder()}, {"manifest", study.manifest()}});
}

}  // namespace saif
