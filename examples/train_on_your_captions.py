"""Trains a translator on the captions of a text file, one per line, and saves it.

    python examples/train_on_your_captions.py captions.txt --out translator
    python examples/train_on_your_captions.py captions.txt --out translator --images photos/ \\
        --clip openai/clip-vit-base-patch32 --clap laion/clap-htsat-unfused

A few thousand captions are enough to start. Each is encoded by CLIP's and by CLAP's text tower; the translator learns
to map the first vector to the second. A few hundred unlabelled images provide the mean of images, which improves the
translation of images. For millions of captions, use `c2c train --recipe recommended --data txt:captions.txt`, which
stores the vectors on disk and resumes after an interruption.
"""

import argparse
from pathlib import Path

import c2c_jax


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("captions", type=Path, help="text file, one caption per line")
    parser.add_argument("--out", type=Path, required=True, help="folder of the translator")
    parser.add_argument("--images", type=Path, help="folder of images")
    parser.add_argument("--clip", default="miniworld/clip", help="CLIP checkpoint (default: %(default)s)")
    parser.add_argument("--clap", default="miniworld/clap", help="CLAP checkpoint (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=1500, help="training steps (default: %(default)s)")
    args = parser.parse_args()

    captions = [line for line in args.captions.read_text(encoding="utf-8").splitlines() if line.strip()]
    clip, clap = c2c_jax.load_space(args.clip), c2c_jax.load_space(args.clap)
    translator = c2c_jax.fit(
        clip.encode_text(captions),
        clap.encode_text(captions),
        images=args.images,
        spaces=(clip, clap),
        steps=args.steps,
    )
    print(translator)
    for name, value in translator.metrics.items():
        print(f"{name:20} {value:.4g}")
    print(translator.save(args.out))


if __name__ == "__main__":
    main()
