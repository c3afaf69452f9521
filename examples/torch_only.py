"""Translates CLIP vectors in PyTorch; JAX is not imported.

    python examples/torch_only.py                         (the mini world's translator and random vectors)
    python examples/torch_only.py --translator ME/NAME --vectors clip.npy --out clap.npy

The module is an ordinary torch.nn.Module: it moves to a GPU with `.cuda()`, and compiles with torch.compile.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from c2c_jax.torch import Translator


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--translator", default="miniworld/translator", help="a folder or a hub name")
    parser.add_argument("--vectors", type=Path, help=".npy file of raw CLIP vectors of images [B, S]")
    parser.add_argument("--out", type=Path, default=Path("clap.npy"), help=".npy file of CLAP vectors [B, E]")
    args = parser.parse_args()

    translator = Translator.from_pretrained(args.translator).eval()
    if args.vectors:
        clip_vectors = torch.from_numpy(np.load(args.vectors).astype(np.float32))
    else:
        clip_vectors = torch.randn(4, translator.source_dim, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        clap_vectors = functional.normalize(translator.from_image(clip_vectors), dim=-1)
    np.save(args.out, clap_vectors.numpy())
    print(f"{args.out}: {tuple(clap_vectors.shape)}")


if __name__ == "__main__":
    main()
