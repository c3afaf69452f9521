"""Scores recipes on the mini world: do they carry pictures to their sounds, having been trained on captions alone?

examples:
  python -m bench.recipe                                  # the paper's recipe and what it is held against
  python -m bench.recipe configs/residual.py configs/mlp_infonce.py --json recipe.json
  python -m bench.recipe configs/residual.py --grid optimizer.learning_rate=1e-3,3e-4 --grid epochs=5,20
  python -m bench.recipe configs/residual.py --offset gap:0.55 --calibrate pictures
  python -m bench.recipe --study --json study.json         # all rows of bench/recipe/study_rows.py, in some hours
  python -m bench.recipe --study --panels gap,curves

Every config, with every combination of the grid's values, is trained with several seeds on the same embedded captions.
The setting that carries most pictures to a sound of their cell on the validation drawings is reported on the test
drawings: means and standard deviations over seeds and drawings. Always in the table: the paper's recipe
(configs/mlp.py), the nearest captions, ridge and Procrustes from captions, zero-shot label prompts, two oracles that
saw pairs, the ceiling (the scene's own sound caption) and chance.
What was embedded or trained before is read from --workdir. A config's memory costs no training: grids of its fields
use the same runs. With --study every panel that is done is kept, and a study that was stopped goes on.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

STUDY = {"captions": 50_000, "seeds": 3, "draws": 3, "pairs": 1440, "training_pairs": 6000}
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
    for name, told in helps.items():
        made.add_argument(
            f"--{name.replace('_', '-')}", type=int, metavar="N", help=f"{told}; default: {DEFAULTS[name]:,}"
        )
    made.add_argument(
        "--offset", default="constant:0", metavar="KIND:LENGTH",
        help="what is added to unit image vectors: constant:0.5 is one vector, random:0.5 one for each picture, "
        "gap:0.55 one so long that the gap between pictures and captions becomes 0.55",
    )  # fmt: skip
    made.add_argument(
        "--calibrate", choices=("pictures", "both"),
        help="give every config a second row, NAME_calibrated, with the means of unlabelled pictures, or of pictures "
        "and sounds that are no pairs",
    )  # fmt: skip
    made.add_argument("--study", action="store_true", help="run the study; with 50,000 captions unless told otherwise")
    made.add_argument("--panels", metavar="A,B", help="of the study; default: all")
    made.add_argument(
        "--second", nargs=2, metavar=("CLIP", "CLAP"), help="another pair of spaces, for the study's panel towers"
    )
    made.add_argument("--clip", default="miniworld/clip", help="the space of the pictures; default: %(default)s")
    made.add_argument("--clap", default="miniworld/clap", help="the space of the sounds; default: %(default)s")
    made.add_argument("--workdir", type=Path, default=Path("build/recipe"), help="default: %(default)s")
    made.add_argument("--processes", type=int, default=os.cpu_count(), metavar="N", help="that draw; default: the CPUs")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures as one flat object")
    made.add_argument("--quick", action="store_true", help="one seed, one drawing, fewer captions and scenes")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    from c2c_jax.cli.main import keep_compiled
    from c2c_jax.errors import C2CError

    flags = parser().parse_args(arguments)
    for name, value in (QUICK if flags.quick else STUDY if flags.study else DEFAULTS).items():
        if getattr(flags, name) is None:
            setattr(flags, name, value)
    flags.most_settings = 1 if flags.study and flags.quick else None
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    keep_compiled()
    try:
        figures = _run(flags)
    except C2CError as error:
        print(f"python -m bench.recipe: {error}", file=sys.stderr)
        return 2
    if flags.json:
        flags.json.parent.mkdir(parents=True, exist_ok=True)
        flags.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def _run(flags: argparse.Namespace) -> dict[str, float | str]:
    """The bench's figures, or the study's. Raises C2CError."""
    from bench.recipe import bench, study
    from c2c_jax.errors import ConfigError

    own = {"configs": flags.configs, "--grid": flags.grid, "--calibrate": flags.calibrate}
    own |= {"--offset": flags.offset != "constant:0"}
    if flags.study and (given := [name for name, value in own.items() if value]):
        raise ConfigError(f"--study has its own rows and takes no {given[0]}")
    if not flags.study and (flags.panels or flags.second):
        raise ConfigError("--panels and --second are the study's: add --study")
    return study.run(flags) if flags.study else bench.run(flags)


if __name__ == "__main__":
    sys.exit(main())
