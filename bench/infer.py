"""Measures the time from the shell to the CLAP vector of one image, compared with transformers running CLIP only.

examples:
  python -m bench.infer
  python -m bench.infer --checkpoint FOLDER_OF_CLIP --quick --json infer.json

Whole programs take turns: `infer.py PICTURE --save-embedding` with an empty compilation cache (cold) and with a filled
one (warm), and a program of six lines with CLIPVisionModelWithProjection. The checkpoint has the sizes of
openai/clip-vit-base-patch32 and random weights, unless --checkpoint names one. Peak memory is the programs' resident
set.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from flax import nnx
from PIL import Image

from bench.checkpoints import build_clip
from bench.measure import bench_parser, medians, report
from c2c_jax.miniworld.captions import captions
from c2c_jax.spaces.space import identify
from c2c_jax.spaces.space_id import SpaceId
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
    sizes = {"source_dim": source.dim, "target_dim": 512}
    spec = TranslatorSpec.of("mlp", {"width": 512, "depth": 4}, clamp=0.2, input_norm="none", **sizes)
    bundle = Bundle(
        translator=build_translator(spec, rngs=nnx.Rngs(0)), spec=spec, source=source,
        target=SpaceId(name="random", dim=512, fingerprint="r" * 64), recipe={}, metrics={},
    )  # fmt: skip
    save_bundle(folder, bundle)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = bench_parser("bench.infer", __doc__)
    parser.add_argument("--checkpoint", type=Path, help="a CLIP folder (default: a random one of published size)")
    parser.add_argument("--quick", action="store_true", help="2 rounds instead of 7")
    flags = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        clip = (flags.checkpoint or folder / "clip").absolute()
        if not flags.checkpoint:
            build_clip(clip, list(captions("train", 2000)), "published")
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

        def run(command: list[str]) -> None:
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            subprocess.run(command, cwd=ROOT, env=environment, check=True, **quiet)

        def cold() -> None:
            shutil.rmtree(cache, ignore_errors=True)
            run(ours)

        run(peer)  # reads the files into the page cache
        contestants = {"cold": cold, "warm": lambda: run(ours), "transformers": lambda: run(peer)}
        seconds = medians(contestants, 2 if flags.quick else 7)
    figures = {
        "start_vs_transformers": seconds["warm"] / seconds["transformers"],
        "cold_start_vs_transformers": seconds["cold"] / seconds["transformers"],
        **{f"{who}_seconds": spent for who, spent in seconds.items()},
        "peak_gib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20,
    }
    report("from the shell to the vector of one image", figures, flags.json)


if __name__ == "__main__":
    main()
