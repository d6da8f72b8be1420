#!/usr/bin/env python3
"""First inputs for the programs under fuzz/: python3 tools/fuzz_seeds.py DATA OUT

DATA is the folder of test material (saes/, goldens/). Writes OUT/<target>/<n>, one folder for each target."""
import pathlib
import sys
import zipfile

# (configuration, weights) in the order of kLayouts in fuzz/fuzz_sae.cc; "*" stands for any name.
LAYOUTS = [
    ("cfg.json", "sae_weights.safetensors"),
    ("cfg.json", "sae.safetensors"),
    (None, "params.npz"),
    ("config.json", "params.safetensors"),
    ("hyperparams.json", "checkpoints/final.safetensors"),
    ("config.json", "sae_weights.safetensors"),
    ("config.json", "ae.pt"),
    ("config.yaml", "layer_*.safetensors"),
    (None, "*.pth"),
    (None, "*.pt"),
]


class Writer:
    def __init__(self, out):
        self.out, self.count = out, {}

    def add(self, target, data):
        folder = self.out / target
        folder.mkdir(parents=True, exist_ok=True)
        number = self.count[target] = self.count.get(target, 0) + 1
        (folder / str(number)).write_bytes(data)


def add_saes(writer, data):
    for index, (config, weights) in enumerate(LAYOUTS):
        for file in sorted((data / "saes").rglob(weights)):
            beside = file.parent.parent if "/" in weights else file.parent
            text = b""
            if config is not None:
                if not (beside / config).is_file():
                    continue
                text = (beside / config).read_bytes() + b"\0"
            writer.add("sae", bytes([index]) + text + file.read_bytes())


def add_containers(writer, data):
    for file in sorted((data / "saes").rglob("*")):
        if file.suffix == ".safetensors" and file.name != "expected.safetensors":
            writer.add("safetensors", file.read_bytes())
        if file.suffix not in (".npz", ".pt", ".pth"):
            continue
        writer.add("zip", file.read_bytes())
        try:
            with zipfile.ZipFile(file) as archive:
                for name in archive.namelist():
                    if name.endswith(".npy"):
                        writer.add("npy", archive.read(name))
                    if name.endswith("data.pkl"):
                        writer.add("pickle", archive.read(name))
        except (zipfile.BadZipFile, KeyError):
            pass


def main():
    data, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    writer = Writer(out)
    add_saes(writer, data)
    add_containers(writer, data)
    for file in sorted(data.rglob("*.json")):
        if file.stat().st_size < 20000:
            writer.add("json", file.read_bytes())
    goldens = pathlib.Path(__file__).resolve().parent.parent / "tests/data/goldens"
    for file in sorted(goldens.rglob("model/config.json")):
        writer.add("config", file.read_bytes() + b"\0" + (file.parent / "model.safetensors").read_bytes())
    for file in sorted((data / "goldens").rglob("*.gguf")):
        if file.stat().st_size < 1 << 20:
            writer.add("gguf", file.read_bytes())
    for target, count in sorted(writer.count.items()):
        print(f"{target}: {count}")


if __name__ == "__main__":
    main()
