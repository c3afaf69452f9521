"""Finds the sounds in a folder that fit images or texts best.

examples:
  c2c search drawing.png --library SOUNDS                                (with the included mini world)
  c2c search photo.png --library SOUNDS --translator runs/mlp --clap audioldm-s-full-v2.ckpt
  c2c search photos/ --library SOUNDS --translator runs/mlp/bundle --top 3 --json > found.json
  c2c search --text "heavy rain" --text "a dog barks" --library SOUNDS --clap laion/clap-htsat-unfused
  c2c search --text "heavy rain" --library SOUNDS --clap laion/clap-htsat-unfused --references captions.txt

Prints scores and files, best first. In a pipe, each line is score<TAB>file, plus <TAB>query if there are several
queries; control characters in names are escaped (--json does not escape them).

Scores are centred cosines: the mean of queries is subtracted from each query and the mean of sounds from each sound
before the cosine is taken. For text queries, hubness is subtracted as well: half of the mean cosine between a sound and
its two nearest reference queries, because a sound close to every text is rarely the right one. Image queries work
better without it; --hubness all subtracts it for them too. The mean of sounds is that of the library, or for fewer than
32 sounds that of the translator. The mean of queries and the reference queries come from the translator, or from the
texts of --references. A line on stderr says which scores are used, and which part is missing and why. With
--no-centre --hubness none, scores are plain cosines.

Audio is embedded once and cached in SOUNDS/.c2c-index, in the user's cache folder if SOUNDS is read-only, or in
--index. Unreadable sounds are skipped and reported once; later searches print only their number. --strict lists them
all and exits with code 2. Unreadable images always give exit code 2.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from c2c_jax.cli import arguments
from c2c_jax.cli.infer import MINIWORLD_NOTE, MINIWORLD_TRANSLATOR
from c2c_jax.errors import C2CError, CaptionError
from c2c_jax.io.console import print_fields, printable, stdout_console
from c2c_jax.io.files import path_to_text, user_path

if TYPE_CHECKING:  # JAX is imported after the flags are parsed
    from c2c_jax.retrieval.search import SearchResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `c2c search`."""
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="images, folders of images, or glob patterns")
    parser.add_argument("--text", action="append", default=[], metavar="TEXT", help="text to search for; repeatable")
    parser.add_argument(
        "--library", required=True, type=user_path, metavar="SOUNDS",
        help="folder of sounds, searched recursively",
    )  # fmt: skip
    parser.add_argument(
        "--translator", type=user_path, metavar="RUN",
        help="translator for images: work directory of a training run, bundle folder or hub name (default: the mini "
        f"world's, {MINIWORLD_TRANSLATOR})",
    )  # fmt: skip
    parser.add_argument(
        "--top", type=int, default=10, metavar="N", help="number of sounds per query (default: %(default)s)"
    )
    parser.add_argument(
        "--index",
        type=user_path,
        metavar="DIR",
        help="folder that caches the sounds' vectors (default: SOUNDS/.c2c-index)",
    )
    parser.add_argument(
        "--references", type=user_path, metavar="FILE",
        help="file of reference queries, one text per line (default: captions stored in the translator)",
    )  # fmt: skip
    parser.add_argument("--no-centre", action="store_true", help="do not subtract means before taking cosines")
    parser.add_argument(
        "--hubness", choices=("texts", "all", "none"), default="texts",
        help="queries for which the hubness of each sound is subtracted from its score; all = texts and images "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="list every unreadable sound and exit with code 2")
    parser.add_argument("--json", action="store_true", help="print the results as a JSON object")
    arguments.add_checkpoints(parser)


def run(args: argparse.Namespace) -> None:
    """Runs `c2c search`. Raises C2CError for invalid flags, missing inputs and unreadable files.

    The results are printed before the error for unreadable files is raised. Unreadable sounds raise it only with
    --strict.
    """
    arguments.require_range(args, "top", 1)
    arguments.require_folder(args.library, "a folder of sounds")
    arguments.require_images(args.images)
    arguments.require_path(args.references, "a file of texts", CaptionError)
    bundle = arguments.require_bundle(args.translator or MINIWORLD_TRANSLATOR) if args.images or args.translator else {}
    arguments.require_checkpoints(
        args.clap or bundle.get("target"), (args.clip or bundle.get("source")) if args.images else None
    )
    from c2c_jax.io.images import find_images

    images, translator = find_images(args.images), args.translator
    if images and not translator:
        translator = MINIWORLD_TRANSLATOR
        print(MINIWORLD_NOTE, file=sys.stderr)
    from c2c_jax.retrieval.search import search

    fields = ("clip", "clap", "top", "index", "references", "hubness")
    result = search(
        args.library,
        images=images,
        texts=args.text,
        translator=translator,
        centre=not args.no_centre,
        list_all=args.strict,
        **{name: getattr(args, name) for name in fields},
    )
    _show_json(result) if args.json else show(result)
    errors = result.error_messages if args.strict else result.image_errors
    if errors:
        raise C2CError(f"{len(errors):,} file{'s' if len(errors) > 1 else ''} could not be read; see above")


def show(result: "SearchResult") -> None:
    """Prints tables on a terminal, lines of tab-separated fields elsewhere."""
    from rich.table import Table

    console = stdout_console()
    for hits in result.hits:
        if console.is_terminal:
            table = Table(f"score ({hits.scoring})", "sound", title=printable(hits.query), title_justify="left")
            for score, path in hits.matches:
                table.add_row(f"{score:.4f}", printable(path))
            console.print(table)
        else:
            query = [hits.query] if len(result.hits) > 1 else []
            for score, path in hits.matches:
                print_fields(f"{score:.4f}", path, *query)


def _show_json(result: "SearchResult") -> None:
    import dataclasses
    import json

    content = {
        "library": path_to_text(result.library.folder),
        "index": path_to_text(result.library.index_folder),
        "clap": dataclasses.asdict(result.clap),
        "queries": [
            {
                **({"picture": path_to_text(Path(hits.query))} if hits.kind == "image" else {"text": hits.query}),
                "scoring": hits.scoring,
                "sounds": [{"score": score, "file": path_to_text(path)} for score, path in hits.matches],
            }
            for hits in result.hits
        ],
        "left_out": [printable(why) for why in result.error_messages],
    }
    print(json.dumps(content, indent=2))
