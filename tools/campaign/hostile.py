"""Malicious files for each file format: false headers, decompression bombs, and code."""

import functools
import io
import json
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tools.campaign.readers import Reader
from tools.campaign.verdicts import MARK

Apply = Callable[[Path], object]
Attack = tuple[str, str, Apply]  # key, description, and function that applies it
CODE = f"open({MARK!r}, 'w').close()"
CHECKPOINTS = ("clip", "clap", "audioldm", "shards")


class Payload:
    """An object that runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (CODE,)


def of(reader: Reader, path: Path) -> Iterator[Attack]:
    """Yields the attacks for a file of a reader."""
    yield from ATTACKS.get(path.suffix, ())
    if path.name in ("config.json", "tokenizer_config.json", "preprocessor_config.json") and reader.name in CHECKPOINTS:
        yield "remote", "names a class in a file of the folder (auto_map)", _remote
        yield "remote-kind", "of a model type that only a file of the folder knows", _remote_kind
    if path.name == "model_index.json":
        yield "pipeline", "a pipeline of a file of the folder", _pipeline
    if path.name.endswith(".index.json"):
        yield "outside", "a shard outside of the folder", _outside


def written(content: bytes) -> Apply:
    return lambda path: path.write_bytes(content)


def changed(change: Callable[[bytes], bytes]) -> Apply:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def _patched(place: int, form: str, *values: int) -> Apply:
    """Overwrites packed numbers at an offset."""
    content = struct.pack(form, *values)
    return changed(lambda data: data[:place] + content + data[place + len(content) :])


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(width: int, height: int, rows: int) -> Apply:
    """Writes a black grey-scale image with only `rows` of its rows."""

    def apply(path: Path) -> None:
        packer = zlib.compressobj(9)
        body = b"".join([*(packer.compress(bytes(width + 1)) for _ in range(rows)), packer.flush()])
        head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
        chunks = _png_chunk(b"IHDR", head) + _png_chunk(b"IDAT", body) + _png_chunk(b"IEND", b"")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)

    return apply


def _with_text(data: bytes) -> bytes:
    text = b"a\0\0" + zlib.compress(bytes(200 * 2**20), 9)
    return data[:33] + _png_chunk(b"zTXt", text) + data[33:]


def _large_jpeg(data: bytes) -> bytes:
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", 65_500, 65_500) + data[place + 4 :]


def _long_flac(path: Path) -> None:
    import soundfile

    with soundfile.SoundFile(path, "w", 8000, 1, format="FLAC", subtype="PCM_16") as file:
        for _ in range(600):
            file.write(np.full(80_000, 0.25, np.float32))


def _npy_header(*shape: int, descr: str = "<f4") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


def _in_npz(content: bytes, zeros: int = 0) -> Apply:
    """Replaces all members by one with the given content and `zeros` MiB of zeros."""

    def apply(path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            with archive.open(names[0], "w", force_zip64=True) as member:
                member.write(content)
                for _ in range(zeros):
                    member.write(bytes(2**20))

    return apply


def _encrypted(data: bytes) -> bytes:
    changed = bytearray(data)
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for match in re.finditer(re.escape(mark), data):
            changed[match.start() + place] |= 1
    return bytes(changed)


def _repacked(path: Path, method: int, damaged: int = 0) -> None:
    """Compresses the members again. damaged: number of bytes to damage in each member."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        starts = [info.header_offset + 30 + len(info.filename) for info in archive.infolist()]
    data = bytearray(path.read_bytes())
    for start in starts:
        data[start + 9 : start + 9 + damaged] = b"\xff" * damaged
    path.write_bytes(bytes(data))


def _repacked_npz() -> Iterator[Attack]:
    for key, method in (("lzma", zipfile.ZIP_LZMA), ("bzip2", zipfile.ZIP_BZIP2)):
        yield key, f"members packed by {key}", functools.partial(_repacked, method=method)
        yield (
            f"{key}-damaged",
            f"members packed by {key}, damaged",
            functools.partial(_repacked, method=method, damaged=9),
        )


def _first_tensor(**fields: Any) -> Apply:
    """Changes header fields of the first tensor of a safetensors file; `name` renames it."""

    def change(data: bytes) -> bytes:
        size = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + size])
        first = next(name for name in header if name != "__metadata__")
        tensor = header.pop(first) | fields
        new = json.dumps(header | {tensor.pop("name", first): tensor}).encode()
        return struct.pack("<Q", len(new)) + new + data[8 + size :]

    return changed(change)


def _not_finite(path: Path) -> None:
    import safetensors.numpy

    tensors = safetensors.numpy.load_file(path)
    name = max(tensors, key=lambda key: tensors[key].size)
    tensors[name] = np.full_like(tensors[name], np.nan)
    safetensors.numpy.save_file(tensors, path, {"format": "pt"})


def _saved(make: Callable[[], object]) -> Apply:
    """Saves an object in torch's format."""

    def apply(path: Path) -> None:
        import torch

        torch.save(make(), path)

    return apply


def _nested() -> object:
    import torch

    return {"model": {"inner": [torch.zeros(3)]}}


_PICKLES: tuple[Attack, ...] = (
    ("code", "a pickle that runs code", written(pickle.dumps(Payload()))),
    ("code-inside", "torch's archive with a pickle that runs code", _saved(lambda: {"linear.weight": Payload()})),
    ("nested", "a nested object in place of a state dict", _saved(_nested)),
)
ATTACKS: dict[str, tuple[Attack, ...]] = {
    ".png": (
        ("bomb", "20,000 × 20,000 pixels in 400 kB", _png(20_000, 20_000, 20_000)),
        ("lie", "a header of 2^31 pixels", _png(2**20, 2**11, 1)),
        ("short", "a third of its rows", _png(300, 300, 100)),
        ("text", "200 MiB of text in a chunk of 200 kB", changed(_with_text)),
    ),
    ".jpg": (("lie", "a header of 65,500 × 65,500 pixels", changed(_large_jpeg)),),
    ".bmp": (
        ("lie", "a header of 2^30 pixels", _patched(18, "<ii", 2**15, 2**15)),
        ("minus", "a width below zero", _patched(18, "<ii", -48, 40)),
    ),
    ".gif": (("lie", "a canvas of 65,535 × 65,535 pixels", _patched(6, "<HH", 65_535, 65_535)),),
    ".wav": (
        ("channels", "65,535 channels", _patched(22, "<H", 65_535)),
        ("no-channels", "no channel", _patched(22, "<H", 0)),
        ("rate", "2^31 samples a second", _patched(24, "<I", 2**31)),
        ("no-rate", "no samples a second", _patched(24, "<I", 0)),
        ("short", "a header of half of the data", _patched(40, "<I", 16_000)),
        ("long", "a header of twice the data", _patched(40, "<I", 64_000)),
    ),
    ".flac": (("unfolds", "100 minutes of a constant in 60 kB", _long_flac),),
    ".npy": (
        ("lie", "a header of 10^12 rows", written(_npy_header(10**12, 24) + bytes(400))),
        ("minus", "a header of -1 rows", written(_npy_header(-1, 24) + bytes(400))),
        ("flat", "one axis", written(_npy_header(100) + bytes(400))),
        ("objects", "Python objects that run code", written(_npy_header(1, descr="|O") + pickle.dumps([Payload()]))),
        ("brackets", "a header of many brackets",
         written(b"\x93NUMPY\x01\x00" + struct.pack("<H", 60_000) + b"(" * 60_000)),
    ),
    ".npz": (
        ("bomb", "4 GiB of zeros in 4 MB", _in_npz(_npy_header(2**20, 1024), 4096)),
        ("lie", "a header of 4 GiB over a megabyte", _in_npz(_npy_header(2**20, 1024), 1)),
        ("objects", "Python objects that run code", _in_npz(_npy_header(1, descr="|O") + pickle.dumps([Payload()]))),
        ("encrypted", "members that need a password", changed(_encrypted)),
        *_repacked_npz(),
    ),
    ".safetensors": (
        ("length", "a header of 2^60 bytes", _patched(0, "<Q", 2**60)),
        ("deep", "a header nested deeply", written(struct.pack("<Q", 100_000) + b"[" * 100_000)),
        ("shape", "a tensor of 10^12 numbers", _first_tensor(shape=[10**6, 10**6])),
        ("dtype", "a tensor of float8", _first_tensor(dtype="F8_E4M3")),
        ("beyond", "a tensor beyond the end", _first_tensor(data_offsets=[0, 10**12])),
        ("renamed", "a tensor of another name", _first_tensor(name="other")),
        ("nan", "a tensor that is not finite", _not_finite),
    ),
    **dict.fromkeys((".bin", ".pt", ".ckpt"), _PICKLES),
}  # fmt: skip

MODULE = f"""{CODE}
from transformers import CLIPConfig, PreTrainedTokenizerFast
class Own(PreTrainedTokenizerFast): pass
class OwnConfig(CLIPConfig): pass
"""
AUTO = {"AutoTokenizer": ["own.Own", "own.Own"], "AutoConfig": "own.OwnConfig", "AutoModel": "own.Own",
        "AutoImageProcessor": "own.Own", "AutoProcessor": "own.Own", "AutoFeatureExtractor": "own.Own"}  # fmt: skip


def _remote(path: Path, **more: Any) -> None:
    (path.parent / "own.py").write_text(MODULE)
    for name in ("tokenizer_config.json", "config.json", "preprocessor_config.json"):
        file = path.parent / name
        if file.is_file():
            file.write_text(json.dumps(json.loads(file.read_text()) | {"auto_map": AUTO} | more))


def _remote_kind(path: Path) -> None:
    _remote(path, model_type="own", tokenizer_class="Own", architectures=["Own"])


def _pipeline(path: Path) -> None:
    (path.parent / "pipeline.py").write_text(CODE)
    index = json.loads(path.read_text())
    (path.parent / "unet" / "own.py").write_text(MODULE)
    path.write_text(json.dumps(index | {"_class_name": ["pipeline", "Own"], "unet": ["own", "Own"]}))


def _outside(path: Path) -> None:
    index = json.loads(path.read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], "../../../../etc/passwd")
    path.write_text(json.dumps(index))
