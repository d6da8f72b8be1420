"""tools/check_tidy.py: a file is looked at again exactly when it, or something that it depends on, has changed."""

import importlib.util
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "check_tidy.py"
spec = importlib.util.spec_from_file_location("check_tidy", SCRIPT)
tidy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tidy)


class StateTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        tidy.ROOT = Path(self.folder.name).resolve()
        self.write("src/base/a.cc", '#include "base/a.h"\n#include <vector>\n')
        self.write("src/base/a.h", '#include "saif/deep.h"\n')
        self.write("include/saif/deep.h", '#include "saif/deep.h"\n')
        self.write("src/base/other.h", "")

    def write(self, name, text):
        path = tidy.ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def state(self, command="c++ a.cc", common=b"16"):
        return tidy.state_of(tidy.ROOT / "src/base/a.cc", command, common)

    def test_unchanged(self):
        before = self.state()
        self.write("src/base/other.h", "int unrelated;\n")
        self.assertEqual(self.state(), before)

    def test_changes_are_seen(self):
        states = [self.state(), self.state(command="c++ -DX a.cc"), self.state(common=b"17")]
        for name in ("src/base/a.cc", "src/base/a.h", "include/saif/deep.h"):
            self.write(name, (tidy.ROOT / name).read_text() + "int x;\n")
            states.append(self.state())
        self.assertEqual(len(set(states)), len(states))


if __name__ == "__main__":
    unittest.main()
