"""From the shell to the CLAP vector of one picture, beside transformers in torch doing CLIP's part alone.

examples:
  python -m bench.infer
  python -m bench.infer --checkpoint FOLDER_OF_CLIP --quick --json infer.json

Programs of their own, start to end, in turn: `infer.py PICTURE --save-embedding` with an empty compilation cache (cold)
and with what it left there (warm), and a program of six lines with CLIPVisionModelWithProjection. The checkpoint has
openai/clip-vit-base-patch32's sizes and random weights, unless one is named. Peak memory is the programs' resident set.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from flax import nnx
from PIL import Image
from rich.console import Console
from rich.table import Table

from bench.checkpoints import build_clip
from bench.demo_captions import captions
from c2c_jax.spaces.space import SpaceId, identify
from c2c_jax.translator.bundle import Bundle, save_bundle
from c2c_jax.translator.kinds import TranslatorSpec, build_translator

ROOT = Path(__file__).parents[1]
PEER = """
import sys
import torch
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection
model = CLIPVisionModelWithProjection.from_pretrained(sys.argv[1]).eval()
pixels = CLIPImageProcessor.from_pretrained(sys.argv[1])(images=Image.open(sys.argv[2]), return_tensors="pt")
with torch.inference_mode():
    print(model(**pixels).image_embeds.norm().item())
"""


def make_bundle(folder: Path, clip: Path) -> None:
    """The paper's MLP with initial weights, between that CLIP and a space of random vectors."""
    source = identify(str(clip))
    spec = TranslatorSpec.from_json(dict(
        kind="mlp", source_dim=source.dim, target_dim=512, width=512, depth=4, heads=1, mlp_width=1, dropout=0.0,
        clamp=0.2, input_norm="none",
    ))  # fmt: skip
    bundle = Bundle(
        translator=build_translator(spec, rngs=nnx.Rngs(0)), spec=spec, source=source,
        target=SpaceId(name="random", dim=512, fingerprint="r" * 64), recipe={}, metrics={},
    )  # fmt: skip
    save_bundle(folder, bundle)


def seconds(command: list[str], environment: dict[str, str]) -> float:
    since = time.perf_counter()
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - since


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.infer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, help="a CLIP folder (default: a random one of published size)")
    parser.add_argument("--quick", action="store_true", help="2 rounds instead of 7")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as one flat object")
    flags = parser.parse_args(arguments)
    times: dict[str, list[float]] = {"cold": [], "warm": [], "transformers": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        clip = (flags.checkpoint or folder / "clip").absolute()
        if not flags.checkpoint:
            build_clip(clip, captions(2000), "published")
        make_bundle(folder / "bundle", clip)
        pixels = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "picture.png")
        (folder / "peer.py").write_text(PEER)
        peer = [sys.executable, str(folder / "peer.py"), str(clip), str(folder / "picture.png")]
        ours = [
            sys.executable, "infer.py", str(folder / "picture.png"), "--translator", str(folder / "bundle"),
            "--save-embedding", str(folder / "x.npy"),
        ]  # fmt: skip
        cache = folder / "cache"
        environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "HF_HUB_OFFLINE": "1"}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        seconds(peer, environment)  # files come into the system's memory
        for _ in range(2 if flags.quick else 7):
            shutil.rmtree(cache, ignore_errors=True)
            times["cold"].append(seconds(ours, environment))
            times["warm"].append(seconds(ours, environment))
            times["transformers"].append(seconds(peer, environment))
    medians = {who: statistics.median(spent) for who, spent in times.items()}
    table = Table("who", "seconds", "of transformers'", title="from the shell to the vector of one picture")
    for who, spent in medians.items():
        table.add_row(who, f"{spent:.2f}", f"{spent / medians['transformers']:.2f} ×")
    Console().print(table)
    figures = {
        "start_vs_transformers": medians["warm"] / medians["transformers"],
        "cold_start_vs_transformers": medians["cold"] / medians["transformers"],
        **{f"{who}_seconds": spent for who, spent in medians.items()},
        "peak_gib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20,
    }
    if flags.json:
        flags.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
