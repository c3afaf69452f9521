"""Scores recipes on the mini world: how well they translate images to sounds after training on captions alone.

examples:
  python -m bench.recipe                                  # the recommended recipe and its baselines
  python -m bench.recipe --geometry clip                  # vectors with the geometry of real CLIP and CLAP
  python -m bench.recipe --counts 300,3000,30000           # the recommended recipe by the number of captions
  python -m bench.recipe configs/residual.py configs/mlp_infonce.py --json recipe.json

Every recipe is trained with several seeds on the same embedded captions and 1,000 unlabelled images, and scored on
several drawings of the test split. The table has means and standard deviations over seeds and drawings. It always
contains the recommended recipe (configs/recommended.py; a config of that name replaces it), the paper's recipe
(configs/mlp.py), the nearest captions, the rotation between captions (Procrustes), an oracle trained on pairs, the
ceiling (the scene's own sound caption) and chance. Sounds are ranked by centred cosines.
With --counts only the recommended recipe, the rotation and the nearest captions are scored, once per number of
captions. --geometry clip gives all vectors the modality means, the gap and the pair cosines of real CLIP and CLAP.
Embedded captions and finished runs are kept in --workdir and reused.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.measure import bench_parser, write_figures

DEFAULTS = {"captions": 24_000, "seeds": 3, "draws": 3, "pairs": 1440, "training_pairs": 6000}
QUICK = {"captions": 4000, "seeds": 1, "draws": 1, "pairs": 288, "training_pairs": 1440}
HELPS = {
    "captions": "training captions",
    "seeds": "seeds of each recipe",
    "draws": "drawings of the test split",
    "pairs": "scenes of a drawing, a multiple of 288, so that all cells are equally frequent",
    "training_pairs": "pairs of the training split that the oracle learns from",
}


def parser() -> argparse.ArgumentParser:
    result = bench_parser("bench.recipe", __doc__)
    result.add_argument("configs", nargs="*", metavar="CONFIG.py", help="recipes, such as configs/residual.py")
    for name, words in HELPS.items():
        flag, default = f"--{name.replace('_', '-')}", DEFAULTS[name]
        result.add_argument(flag, type=int, metavar="N", help=f"{words}; default: {default:,}")
    result.add_argument("--counts", metavar="N1,N2", help="numbers of training captions to compare; see above")
    result.add_argument(
        "--geometry", choices=("natural", "clip"), default="natural",
        help="natural: the mini world's own vectors; clip: with the means, gap and pair cosines of real CLIP and CLAP; "
        "default: %(default)s",
    )  # fmt: skip
    result.add_argument("--clip", default="miniworld/clip", help="the space of images; default: %(default)s")
    result.add_argument("--clap", default="miniworld/clap", help="the space of sounds; default: %(default)s")
    result.add_argument("--workdir", type=Path, default=Path("build/recipe"), help="default: %(default)s")
    result.add_argument(
        "--processes",
        type=int,
        default=os.cpu_count(),
        metavar="N",
        help="processes that draw scenes; default: the number of CPUs",
    )
    result.add_argument("--quick", action="store_true", help="one seed, one drawing, fewer captions and scenes")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    from bench.recipe.compare import check_flags, grow, run
    from c2c_jax.cli.main import keep_compiled
    from c2c_jax.errors import C2CError

    flags = parser().parse_args(arguments)
    for name, value in (QUICK if flags.quick else DEFAULTS).items():
        if getattr(flags, name) is None:
            setattr(flags, name, value)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    keep_compiled()
    try:
        check_flags(flags)
        figures = grow(flags) if flags.counts else run(flags)
    except C2CError as error:
        print(f"python -m bench.recipe: {error}", file=sys.stderr)
        return 2
    write_figures(flags.json, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
