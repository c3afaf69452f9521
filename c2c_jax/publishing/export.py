"""Exports a translator: a folder with the bundle, its model card and, on request, its ONNX form."""

import tempfile
from pathlib import Path

import safetensors

from c2c_jax.errors import BundleError, ConfigError, ExportError, one_line
from c2c_jax.io.atomic import atomic_write, sweep, temporary_folder
from c2c_jax.io.files import open_regular
from c2c_jax.io.json import read_json
from c2c_jax.io.output_paths import require_replaceable_folder
from c2c_jax.publishing.card import LIBRARY, model_card
from c2c_jax.publishing.hub import require_access, upload
from c2c_jax.publishing.names import without_places
from c2c_jax.publishing.onnx import require_onnx, write_onnx
from c2c_jax.translator.bundle import load_bundle, write_files
from c2c_jax.translator.kinds import TORCH_KINDS
from c2c_jax.translator.resolve import bundle_folder

FILES = {"config.json", "model.safetensors", "README.md"}
MAX_CARD = 2**16  # bytes of a README.md in which its front matter is looked for
MAY_BE_THERE = {*FILES, "model.onnx", "model_from_image.onnx"}


def publish(
    run: Path, *, out: Path | None = None, push: str | None = None, private: bool = False, onnx: bool = False
) -> list[str]:
    """Exports a run's translator to the folder `out`, to the hub repository `push`, or to both. Returns the places.

    run: see `bundle_folder`. private: whether the repository is private. onnx: whether the ONNX form is written too.
    Nothing is written before all checks have passed.
    Raises ConfigError, BundleError, CheckpointError or ExportError.
    """
    if out is None and push is None:
        raise ConfigError("nowhere to export to: pass --out DIR, --push NAME or both")
    if private and push is None:
        raise ConfigError("--private says how to upload, and there is no --push NAME")
    bundle = bundle_folder(run)
    if out is not None:
        require_replaceable_folder(out, "--out")
        _require_free(out)
    if push is not None:
        require_access(push)
    if onnx:
        require_onnx()
    if out is None:
        sweep(Path(tempfile.gettempdir()))
        with temporary_folder(Path(tempfile.gettempdir())) as folder:
            write_export(folder / "export", bundle, name=str(push), onnx=onnx)
            return [upload(folder / "export", str(push), private=private)]
    write_export(out, bundle, name=push or out.resolve().name, onnx=onnx)
    return [str(out), *([upload(out, push, private=private)] if push else [])]


def write_export(out: Path, bundle: Path, *, name: str, onnx: bool) -> None:
    """Writes the export of a bundle folder atomically; an earlier one of that name is replaced.

    name: what the card's example loads it by. Raises as `load_bundle`, and ExportError if it cannot be written or the
    ONNX form does not agree.
    """
    published = without_places(load_bundle(bundle))
    if published.spec.kind not in TORCH_KINDS:
        raise ExportError(
            f"{bundle} holds a translator of kind {published.spec.kind}, which c2c_jax.torch does not have: share the "
            "bundle folder itself, with the module that registers the kind"
        )
    widths = (published.source.dim, published.target.dim), (published.spec.source_dim, published.spec.target_dim)
    if widths[0] != widths[1]:
        raise BundleError(f"{bundle} has spaces {widths[0]} wide, and a translator of {widths[1]}: make it again")
    try:
        with atomic_write(out) as beside:
            beside.mkdir()
            write_files(beside, published)
            graphs = write_onnx(beside) if onnx else []
            card = model_card(published, name, [graph.name for graph in graphs])
            (beside / "README.md").write_text(card, encoding="utf-8")
    except (OSError, safetensors.SafetensorError) as error:
        raise ExportError(f"{out} could not be written ({one_line(error)}); free disk space and start again") from error


def _require_free(out: Path) -> None:
    """Raises ExportError if anything but an earlier export is there."""
    if not out.exists():
        return
    found = {path.name for path in out.iterdir()}
    if found and not (FILES <= found <= MAY_BE_THERE and _is_export(out)):
        raise ExportError(f"{out} exists and is not an earlier export: pass another --out, or move it away")


def _is_export(folder: Path) -> bool:
    try:
        config = read_json(folder / "config.json", ExportError)
        with open_regular(folder / "README.md", "a model card", ExportError, "") as file:
            card = file.read(MAX_CARD)
    except ExportError:
        return False
    return "translator" in config and f"library_name: {LIBRARY}".encode() in card
