"""Exports a translator to a folder with the bundle, its model card and, optionally, ONNX files."""

import tempfile
from pathlib import Path

import safetensors

from c2c_jax.errors import BundleError, ConfigError, ExportError, one_line
from c2c_jax.io.atomic import atomic_write, sweep, temporary_folder
from c2c_jax.io.extras import require_extra
from c2c_jax.io.files import open_regular
from c2c_jax.io.json import read_json
from c2c_jax.io.output_paths import require_replaceable_folder
from c2c_jax.io.resolve import bundle_folder
from c2c_jax.publishing.card import LIBRARY, model_card
from c2c_jax.publishing.hub import require_access, upload
from c2c_jax.publishing.names import without_local_paths
from c2c_jax.translator.bundle import Bundle, load_bundle, write_files
from c2c_jax.translator.kinds import TORCH_KINDS

FILES = {"config.json", "model.safetensors", "README.md"}
ONNX_PACKAGES = "torch", "onnx", "onnxscript", "onnxruntime"
MAX_CARD = 2**16  # bytes at the start of a README.md that are searched for its front matter
EXPORT_FILES = {*FILES, "model.onnx", "model_from_image.onnx"}


def publish(
    run: Path, *, out: Path | None = None, push: str | None = None, private: bool = False, onnx: bool = False
) -> list[str]:
    """Exports a run's translator to the folder `out`, the hub repository `push`, or both. Returns their addresses.

    run: see `bundle_folder`. private: whether the repository is private. onnx: whether to write ONNX files too.
    Nothing is written until all checks have passed.
    Raises ConfigError, BundleError, CheckpointError, ExportError or MissingExtraError.
    """
    if out is None and push is None:
        raise ConfigError("nowhere to export to: pass --out DIR, --push NAME or both")
    if private and push is None:
        raise ConfigError("--private needs --push NAME")
    folder = bundle_folder(run)
    if out is not None:
        require_replaceable_folder(out, "--out")
        _require_free(out)
    if onnx:
        require_extra("onnx", "exporting to ONNX", *ONNX_PACKAGES)
    if push is not None:
        require_access(push)
    bundle = load_bundle(folder)
    if out is None:
        return [push_bundle(bundle, str(push), origin=str(folder), private=private, onnx=onnx)]
    write_export(out, bundle, origin=str(folder), name=push or out.resolve().name, onnx=onnx)
    return [str(out), *([upload(out, push, private=private)] if push else [])]


def push_bundle(bundle: Bundle, name: str, *, origin: str, private: bool = False, onnx: bool = False) -> str:
    """Uploads the export of a bundle to the hub repository `name`, and returns its address. See `write_export`."""
    sweep(Path(tempfile.gettempdir()))
    with temporary_folder(Path(tempfile.gettempdir())) as folder:
        write_export(folder / "export", bundle, origin=origin, name=name, onnx=onnx)
        return upload(folder / "export", name, private=private)


def write_export(out: Path, bundle: Bundle, *, origin: str, name: str, onnx: bool = False) -> None:
    """Writes the export of a bundle atomically, replacing an earlier one.

    origin: where the bundle comes from, for messages. name: the hub name or folder that the card's example loads.
    Raises BundleError for spaces and a translator of different widths, and ExportError if it cannot be written or if
    the ONNX files give different results.
    """
    published = without_local_paths(bundle)
    if published.spec.kind not in TORCH_KINDS:
        raise ExportError(
            f"{origin} holds a translator of kind {published.spec.kind}, which c2c_jax.torch does not have: publish "
            f"the "
            "bundle folder itself with the module that registers the kind"
        )
    widths = (published.source.dim, published.target.dim), (published.spec.source_dim, published.spec.target_dim)
    if widths[0] != widths[1]:
        raise BundleError(f"{origin} has spaces {widths[0]} wide but a translator {widths[1]} wide: create it again")
    try:
        with atomic_write(out) as temp:
            temp.mkdir()
            write_files(temp, published)
            graphs: list[Path] = []
            if onnx:
                from c2c_jax.publishing.onnx import write_onnx  # imports torch

                graphs = write_onnx(temp)
            card = model_card(published, name, [graph.name for graph in graphs])
            (temp / "README.md").write_text(card, encoding="utf-8", newline="\n")
    except (OSError, safetensors.SafetensorError) as error:
        raise ExportError(f"{out} could not be written ({one_line(error)}); free disk space and start again") from error


def _require_free(out: Path) -> None:
    """Raises ExportError if the folder contains anything but an earlier export."""
    if not out.exists():
        return
    names = {path.name for path in out.iterdir()}
    if names and not (FILES <= names <= EXPORT_FILES and _is_export(out)):
        raise ExportError(f"{out} exists and is not an earlier export: pass another --out, or move it away")


def _is_export(folder: Path) -> bool:
    try:
        config = read_json(folder / "config.json", ExportError)
        with open_regular(folder / "README.md", "a model card", ExportError, "") as file:
            card = file.read(MAX_CARD)
    except ExportError:
        return False
    return "translator" in config and f"library_name: {LIBRARY}".encode() in card
