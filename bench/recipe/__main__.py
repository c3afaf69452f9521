"""Scores recipes on the mini world: do they carry pictures to their sounds, having been trained on captions alone?

examples:
  python -m bench.recipe                                  # the recommended recipe and what it is compared with
  python -m bench.recipe --geometry clip                  # the same, with vectors as far apart as real CLIP's
  python -m bench.recipe --counts 300,3000,30000           # the recommended recipe on sets of captions that grow
  python -m bench.recipe configs/residual.py configs/mlp_infonce.py --json recipe.json
  python -m bench.recipe configs/residual.py --grid optimizer.learning_rate=1e-3,3e-4 --grid epochs=5,20

Every config, with every combination of the grid's values, is trained with several seeds on the same embedded captions
and 1,000 unlabelled pictures. The setting whose pictures most often find a sound of their cell on the validation
drawings is reported on the test drawings: means and standard deviations over seeds and drawings. Always in the table:
the recommended recipe (configs/recommended.py; a config of that name takes its place), the paper's (configs/mlp.py),
the nearest captions, ridge and Procrustes from captions, zero-shot label prompts, two oracles that are trained on
pairs, the ceiling (the scene's own sound caption) and chance. Sounds are ranked by centred cosines.
With --counts the recommended recipe, the rotation and the nearest captions alone are scored, once for each number.
--geometry clip gives all vectors the modality means, the gap and the pair cosines of real CLIP and CLAP.
What was embedded or trained before is read from --workdir.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

DEFAULTS = {"captions": 24_000, "seeds": 3, "draws": 3, "pairs": 1440, "training_pairs": 6000}
QUICK = {"captions": 4000, "seeds": 1, "draws": 1, "pairs": 288, "training_pairs": 1440}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m bench.recipe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("configs", nargs="*", metavar="CONFIG.py", help="recipes, such as configs/residual.py")
    made.add_argument(
        "--grid", action="append", default=[], metavar="FIELD=V1,V2", help="values of a config field to try, each"
    )
    helps = {
        "captions": "training captions",
        "seeds": "translator seeds",
        "draws": "drawings of the validation and the test split",
        "pairs": "scenes of a drawing, a multiple of 288, so that every cell comes equally often",
        "training_pairs": "pairs of the training split that the oracles learn from",
    }
    for name, words in helps.items():
        made.add_argument(
            f"--{name.replace('_', '-')}", type=int, metavar="N", help=f"{words}; default: {DEFAULTS[name]:,}"
        )
    made.add_argument(
        "--counts", metavar="N1,N2", help="numbers of training captions, for a table of growing sets; see above"
    )
    made.add_argument(
        "--geometry", choices=("natural", "clip"), default="natural",
        help="natural: the mini world's own vectors; clip: with the means, gap and pair cosines of real CLIP and CLAP; "
        "default: %(default)s",
    )  # fmt: skip
    made.add_argument("--clip", default="miniworld/clip", help="the space of the pictures; default: %(default)s")
    made.add_argument("--clap", default="miniworld/clap", help="the space of the sounds; default: %(default)s")
    made.add_argument("--workdir", type=Path, default=Path("build/recipe"), help="default: %(default)s")
    made.add_argument("--processes", type=int, default=os.cpu_count(), metavar="N", help="that draw; default: the CPUs")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures as one flat object")
    made.add_argument("--quick", action="store_true", help="one seed, one drawing, fewer captions and scenes")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    from bench.recipe.bench import check_flags, run
    from bench.recipe.growing import grow, read_counts
    from c2c_jax.cli.main import keep_compiled
    from c2c_jax.errors import C2CError, ConfigError

    flags = parser().parse_args(arguments)
    for name, value in (QUICK if flags.quick else DEFAULTS).items():
        if getattr(flags, name) is None:
            setattr(flags, name, value)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    keep_compiled()
    try:
        check_flags(flags)
        if flags.counts and (flags.configs or flags.grid):
            raise ConfigError("--counts cannot be combined with CONFIG.py or --grid")
        figures = grow(flags, read_counts(flags.counts)) if flags.counts else run(flags)
    except C2CError as error:
        print(f"python -m bench.recipe: {error}", file=sys.stderr)
        return 2
    if flags.json:
        flags.json.parent.mkdir(parents=True, exist_ok=True)
        flags.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
