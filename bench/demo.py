"""Prints the files that `make demo` wrote, and how well its translator maps images to sounds.

python -m bench.demo build/demo
"""

import argparse
import json
from pathlib import Path

METHODS = {
    "chance": "chance",
    "procrustes": "the rotation between captions' vectors, no training",
    "nearest_caption": "nearest captions, no training",
    "translator": "this translator, trained on captions alone",
    "oracle": "an oracle that is trained on pairs",
}


def lines(folder: Path) -> list[str]:
    """The lines to print for a demo's folder."""
    rows = json.loads((folder / "run/evaluation/metrics.json").read_text(encoding="utf-8"))["rows"]
    of_method = {}
    for metric in ("neighbour_accuracy", "centred_neighbour_accuracy"):  # the second one if there is one
        matches = (row for row in rows if row["task"] == "images_to_sounds" and row["metric"] == metric)
        of_method |= {row["method"]: row for row in matches}
    count = of_method["translator"]["n"]
    shown = [
        f"page:       {folder / 'report.html'}",
        *(f"sound:      {path}" for path in sorted((folder / "sounds").glob("*.wav"))),
        f"translator: {folder / 'run/bundle'}",
        f"images to sounds: how often the nearest of {count:,} sounds is of the image's own source",
    ]
    for method, name in METHODS.items():
        row = of_method[method]
        interval = "" if row["low"] is None else f"  ({row['low']:.3f} to {row['high']:.3f})"
        shown.append(f"  {row['value']:.3f}  {name}{interval}")
    return shown


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="output folder of make demo")
    print("\n" + "\n".join(lines(parser.parse_args().folder)))


if __name__ == "__main__":
    main()
