"""What `c2c evaluate` is asked for, and its inputs: the bundle, captions, pairs and generated sounds."""

import dataclasses
from pathlib import Path

from rich.console import Console

from c2c_jax.data.captions import CaptionStream, open_sources
from c2c_jax.data.store import SIDES, Store
from c2c_jax.errors import ConfigError, ManifestError, StoreError
from c2c_jax.evaluation.bootstrap import Bootstrap
from c2c_jax.evaluation.generated import Generated, read_generated
from c2c_jax.evaluation.pairs import Pairs, read_pairs
from c2c_jax.evaluation.rows import Missing, SkippedFile
from c2c_jax.evaluation.training_store import TrainingStore, open_training_store, require_spaces
from c2c_jax.evaluation.vectors import Captions, FileVectors, PairVectors, TextVectors
from c2c_jax.io.audio import find_audio
from c2c_jax.io.files import describe_path, sha256_of, user_path
from c2c_jax.publishing.names import public_caption_spec
from c2c_jax.translator.bundle import Bundle, load_bundle
from c2c_jax.translator.resolve import bundle_folder

REFITTED = (
    "after selection, this translator's closed-form part was fitted to the held-out captions as well, so that scores "
    "on them are optimistic; pass --captions with captions that were not used in training"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalRequest:
    """What to evaluate, and on what.

    run: see `bundle_folder`. captions: a caption source or the folder of a store, of which captions that training saw
    are dropped; None: the held-out ones. store: where the training store is now; None: where the run says. pairs: see
    `read_pairs`. sounds: an output folder of infer.py. reference: a folder of sounds to compare these with; None: the
    pairs' sounds. clip, clap: checkpoints; None: those that the bundle names. csls: number of neighbours; None: no CSLS
    scores. centre, hubness: whether to score by centred cosine, and by centred cosine less hubness. geometry: whether
    to describe the two spaces.
    """

    run: Path
    captions: str | None = None
    store: Path | None = None
    pairs: Path | None = None
    sounds: Path | None = None
    reference: Path | None = None
    clip: str | None = None
    clap: str | None = None
    csls: int | None = None
    centre: bool = True
    hubness: bool = True
    geometry: bool = False
    bootstrap: Bootstrap = Bootstrap()


@dataclasses.dataclass(kw_only=True, eq=False)
class EvalInputs:
    """The inputs of an evaluation.

    training: None if the training store is not found. described: the captions' number and source, for people; None:
    there are none. captions: a store's; texts: captions to encode. reference_files: sounds other than the pairs'.
    skipped: files and rows that cannot be used. missing: what cannot be computed. warnings: reasons to doubt the
    figures. Known once they are encoded: pair_vectors, audios: vectors of all sounds, target_texts: target vectors of
    the pairs' captions and the classes' prompts.
    """

    bundle: Bundle
    training: TrainingStore | None = None
    described: str | None = None
    captions: Captions | None = None
    texts: list[str] = dataclasses.field(default_factory=list)
    pairs: Pairs | None = None
    generated: Generated | None = None
    reference_files: list[Path] = dataclasses.field(default_factory=list)
    skipped: list[SkippedFile] = dataclasses.field(default_factory=list)
    missing: list[Missing] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    pair_vectors: PairVectors | None = None
    audios: FileVectors = dataclasses.field(default_factory=dict)
    target_texts: TextVectors = dataclasses.field(default_factory=dict)


def find_inputs(request: EvalRequest, console: Console) -> EvalInputs:
    """Finds and reads the bundle, lists and records; prints on the console what captions and pairs were read.

    Raises BundleError, CheckpointError, CaptionError, ManifestError, ReportError or StoreError for what is missing or
    cannot be read, ConfigError if there is nothing to evaluate on.
    """
    folder = bundle_folder(request.run)
    inputs = EvalInputs(bundle=load_bundle(folder))
    bundle = inputs.bundle
    try:
        inputs.training = open_training_store(request.run, bundle, request.store)
    except StoreError as error:
        if request.store:
            raise
        inputs.missing.append(Missing(what="nearest_caption, procrustes, ridge", why=str(error)))
    if request.captions:
        _find_captions(inputs, request.captions, console)
    elif (training := inputs.training) and len(training.held_out):
        inputs.described = f"{len(training.held_out):,} that training held out"
        inputs.captions = Captions(*(training.store.read_rows(side, training.held_out) for side in SIDES))
        inputs.warnings = [REFITTED] if bundle.choice and bundle.choice.is_refitted else []
    if request.pairs:
        inputs.pairs = read_pairs(request.pairs)
        inputs.skipped += inputs.pairs.skipped
        console.print(str(inputs.pairs))
        if not inputs.pairs.labels:
            why = f"no labels: {inputs.pairs.description}"
            inputs.missing.append(Missing(what="class_accuracy, neighbour_accuracy, map", why=why))
    if request.sounds:
        weights, items = sha256_of(folder / "model.safetensors"), inputs.pairs.items if inputs.pairs else []
        inputs.generated, skipped = read_generated(request.sounds, weights, bundle.target.dim, items)
        inputs.skipped += skipped
    if not (inputs.described or inputs.pairs or inputs.generated is not None):
        why = inputs.missing[0].why if inputs.missing else "training held none out"
        raise ConfigError(f"nothing to evaluate on: no captions ({why}); or pass --captions, --pairs or --sounds")
    if reference := request.reference:
        if not reference.is_dir():
            raise ManifestError(
                f"expected a folder of sounds at --reference {reference}, found {describe_path(reference)}: pass an "
                "existing folder"
            )
        inputs.reference_files = find_audio(reference)
        if not inputs.reference_files:
            raise ManifestError(f"{reference} contains no sound: pass a folder of sounds as --reference")
    return inputs


def _find_captions(inputs: EvalInputs, source: str, console: Console) -> None:
    """Adds the captions of a source or store that training did not see. Raises ConfigError if there is none."""
    training = inputs.training
    if Store.exists(user_path(source)):
        store = Store.open(user_path(source))
        require_spaces(store, inputs.bundle)
        store.check_files()
        rows = training.unseen_rows(store) if training else None
        inputs.captions = Captions(*(store.read(s) if rows is None else store.read_rows(s, rows) for s in SIDES))
        count, read = len(inputs.captions.source_NS), store.plan.rows
        where = f"the store {store.path.name}"
    else:
        stream = CaptionStream(open_sources(source), drop_duplicates=True)
        texts = list(stream)
        for line in stream.report():
            console.print(line)
        seen = training.seen(texts) if training else set()
        inputs.texts = [text for text in texts if text not in seen]
        count, read, where = len(inputs.texts), len(texts), public_caption_spec(source)
    if not count:
        why = f"training saw all {read:,} of them" if read else "it has none"
        raise ConfigError(f"no caption of {where} to evaluate on: {why}; pass others as --captions")
    inputs.described = f"all {read:,} of {where}"
    if count < read:
        inputs.described = f"{count:,} of {where}, without {read - count:,} that training saw"
