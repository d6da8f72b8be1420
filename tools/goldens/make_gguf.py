#!/usr/bin/env python3
"""Converts the models of the goldens to GGUF with llama.cpp's own converter: model-f32.gguf beside each golden.json.

Optional: needs a Python with PyTorch, transformers and the source of llama.cpp (the source distribution of
llama-cpp-python holds it under vendor/llama.cpp). The tiny models have no tokenizer, so the files get a vocabulary of
placeholders; their tensors and keys are what the converter writes for a real model of the family.

    python tools/goldens/make_gguf.py --llama-cpp DIR [--goldens tests/data/goldens] [NAME...]
"""

import argparse
import json
import pathlib
import sys
import tempfile


def stage(folder, work):
    """A folder with the weights, the config as Transformers 4 spells it, which the converter knows for every family, and
    the vocabulary that some families' converters look at."""
    config = json.loads((folder / "config_v4.json").read_text())
    (work / "config.json").write_text(json.dumps(config))
    for file in (folder / "model").glob("model*.safetensors*"):
        (work / file.name).symlink_to(file.resolve())
    vocab = {f"<{i}>": i for i in range(config["vocab_size"])}
    (work / "tokenizer.json").write_text(json.dumps({"added_tokens": [], "model": {"type": "BPE", "vocab": vocab,
                                                                                               "merges": []}}))
    return config


def convert(conversion, gguf, folder, work):
    """Writes folder/model-f32.gguf; raises what the converter raises for a config that GGUF cannot say."""
    hparams = stage(folder, work)
    kind = conversion.get_model_class(
        conversion.get_model_architecture(hparams, conversion.ModelType.TEXT), mmproj=False)

    class Bare(kind):
        model_arch = kind.model_arch

        def set_vocab(self):
            size = self.hparams["vocab_size"]
            self.gguf_writer.add_tokenizer_model("gpt2")
            self.gguf_writer.add_token_list(["a", "b", "ab"] + [f"<{i}>" for i in range(3, size)])
            self.gguf_writer.add_token_types([gguf.TokenType.NORMAL] * size)
            self.gguf_writer.add_token_merges(["a b"])

    out = folder / "model-f32.gguf"
    Bare(work, gguf.LlamaFileType.ALL_F32, out, hparams=hparams).write()
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    root = pathlib.Path(__file__).resolve().parents[2]
    parser.add_argument("--llama-cpp", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--goldens", type=pathlib.Path, default=root / "tests/data/goldens")
    parser.add_argument("names", nargs="*", metavar="NAME")
    args = parser.parse_args()
    sys.path[:0] = [str(args.llama_cpp), str(args.llama_cpp / "gguf-py")]
    import conversion
    import gguf

    for folder in sorted(path.parent for path in args.goldens.glob("*/golden.json")):
        if args.names and folder.name not in args.names:
            continue
        try:
            with tempfile.TemporaryDirectory() as work:
                file = convert(conversion, gguf, folder, pathlib.Path(work))
            print(f"{folder.name}: {file.stat().st_size} bytes")
        except (NotImplementedError, ValueError, KeyError, AssertionError, OSError) as error:
            (folder / "model-f32.gguf").unlink(missing_ok=True)
            print(f"{folder.name}: not converted: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
