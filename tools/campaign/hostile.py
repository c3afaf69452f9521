"""Files that lie, unfold or run code: built for the kind of file whose place they take."""

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

Attack = tuple[str, str, Callable[[Path], object]]
CODE = f"open({MARK!r}, 'w').close()"


class Payload:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (CODE,)


def of(reader: Reader, path: Path) -> Iterator[Attack]:
    """(key, how, apply) of the hostile files for a kind of file."""
    kind = KINDS.get(path.suffix)
    if kind:
        yield from kind()
    if path.name in ("config.json", "tokenizer_config.json", "preprocessor_config.json") and reader.name in CHECKPOINTS:
        yield "remote", "names a class in a file of the folder (auto_map)", _remote
        yield "remote-kind", "of a model type that only a file of the folder knows", _remote_kind
    if path.name == "model_index.json":
        yield "pipeline", "a pipeline of a file of the folder", _pipeline
    if path.name.endswith(".index.json"):
        yield "outside", "a shard outside of the folder", _outside


CHECKPOINTS = ("clip", "clap", "audioldm", "shards")


def _written(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _patched(place: int, content: bytes) -> Callable[[Path], object]:
    def apply(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[:place] + content + data[place + len(content) :])

    return apply


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(width: int, height: int, rows: int) -> bytes:
    """A black picture in grey, of which `rows` rows are there."""
    packer = zlib.compressobj(9)
    row = bytes(width + 1)
    body = b"".join([*(packer.compress(row) for _ in range(rows)), packer.flush()])
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = _png_chunk(b"IHDR", head) + _png_chunk(b"IDAT", body) + _png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _pngs() -> Iterator[Attack]:
    yield (
        "bomb",
        "20,000 × 20,000 pixels in 400 kB",
        lambda path: path.write_bytes(_png(20_000, 20_000, 20_000)),
    )
    yield "lie", "a header of 2^31 pixels", _written(_png(2**20, 2**11, 1))
    yield "short", "a third of its rows", _written(_png(300, 300, 100))
    text = b"a\0\0" + zlib.compress(bytes(200 * 2**20), 9)

    def with_text(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[:33] + _png_chunk(b"zTXt", text) + data[33:])

    yield "text", "200 MiB of text in a chunk of 200 kB", with_text


def _jpegs() -> Iterator[Attack]:
    def apply(path: Path) -> None:
        data = bytearray(path.read_bytes())
        place = data.index(b"\xff\xc0") + 5
        data[place : place + 4] = struct.pack(">HH", 65_500, 65_500)
        path.write_bytes(bytes(data))

    yield "lie", "a header of 65,500 × 65,500 pixels", apply


def _bmps() -> Iterator[Attack]:
    yield "lie", "a header of 2^30 pixels", _patched(18, struct.pack("<ii", 2**15, 2**15))
    yield "minus", "a width below zero", _patched(18, struct.pack("<ii", -48, 40))


def _gifs() -> Iterator[Attack]:
    yield "lie", "a canvas of 65,535 × 65,535 pixels", _patched(6, struct.pack("<HH", 65_535, 65_535))


def _wavs() -> Iterator[Attack]:
    yield "channels", "65,535 channels", _patched(22, struct.pack("<H", 65_535))
    yield "no-channels", "no channel", _patched(22, struct.pack("<H", 0))
    yield "rate", "2^31 samples a second", _patched(24, struct.pack("<I", 2**31))
    yield "no-rate", "no samples a second", _patched(24, struct.pack("<I", 0))
    yield "short", "a data chunk of which half is said", _patched(40, struct.pack("<I", 16_000))
    yield "long", "a data chunk of which twice is said", _patched(40, struct.pack("<I", 64_000))


def _flacs() -> Iterator[Attack]:
    def long(path: Path) -> None:
        import soundfile

        with soundfile.SoundFile(path, "w", 8000, 1, format="FLAC", subtype="PCM_16") as file:
            for _ in range(600):
                file.write(np.full(80_000, 0.25, np.float32))

    yield "unfolds", "100 minutes of a constant in 60 kB", long


def _npys() -> Iterator[Attack]:
    def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
        return file.getvalue()

    yield "lie", "a header of 10^12 rows", _written(header((10**12, 24)) + bytes(400))
    yield "minus", "a header of -1 rows", _written(header((-1, 24)) + bytes(400))
    yield "flat", "one axis", _written(header((100,)) + bytes(400))
    yield "objects", "Python objects that run code", _written(header((1,), "|O") + pickle.dumps([Payload()]))
    yield (
        "brackets",
        "a header of many brackets",
        _written(b"\x93NUMPY\x01\x00" + struct.pack("<H", 60_000) + b"(" * 60_000),
    )


def _npzs() -> Iterator[Attack]:
    def packed(content: bytes, repeats: int = 1) -> Callable[[Path], object]:
        def apply(path: Path) -> None:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                with archive.open(names[0], "w", force_zip64=True) as member:
                    member.write(content)
                    for _ in range(repeats):
                        member.write(bytes(2**20))

        return apply

    file = io.BytesIO()
    fields = {"descr": "<f4", "fortran_order": False, "shape": (2**20, 1024)}
    np.lib.format.write_array_header_1_0(file, fields)
    yield "bomb", "4 GiB of zeros in 4 MB", packed(file.getvalue(), 4096)
    yield "lie", "a header of 4 GiB over a megabyte", packed(file.getvalue(), 1)
    objects = io.BytesIO()
    np.lib.format.write_array_header_1_0(objects, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    yield "objects", "Python objects that run code", packed(objects.getvalue() + pickle.dumps([Payload()]), 0)
    yield "encrypted", "members that need a password", _encrypted
    for key, method in (("lzma", zipfile.ZIP_LZMA), ("bzip2", zipfile.ZIP_BZIP2)):
        yield key, f"members packed by {key}", functools.partial(_repacked, method=method)
        yield f"{key}-damaged", f"members packed by {key}, damaged", functools.partial(_repacked, method=method, lost=9)


def _encrypted(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for found in re.finditer(re.escape(mark), bytes(data)):
            data[found.start() + place] |= 1
    path.write_bytes(bytes(data))


def _repacked(path: Path, method: int, lost: int = 0) -> None:
    """lost: bytes of each member that are damaged."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        starts = [info.header_offset + 30 + len(info.filename) for info in archive.infolist()]
    data = bytearray(path.read_bytes())
    for start in starts:
        data[start + 9 : start + 9 + lost] = b"\xff" * lost
    path.write_bytes(bytes(data))


def _tensors() -> Iterator[Attack]:
    def lying(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], object]:
        def apply(path: Path) -> None:
            data = path.read_bytes()
            size = struct.unpack("<Q", data[:8])[0]
            header = json.loads(data[8 : 8 + size])
            change(header)
            new = json.dumps(header).encode()
            path.write_bytes(struct.pack("<Q", len(new)) + new + data[8 + size :])

        return apply

    def first(header: dict[str, Any]) -> dict[str, Any]:
        return header[next(name for name in header if name != "__metadata__")]

    yield "length", "a header of 2^60 bytes", _patched(0, struct.pack("<Q", 2**60))
    yield "deep", "a header nested deeply", _written(struct.pack("<Q", 100_000) + b"[" * 100_000)
    yield "shape", "a tensor of 10^12 numbers", lying(lambda header: first(header).update(shape=[10**6, 10**6]))
    yield "dtype", "a tensor of float8", lying(lambda header: first(header).update(dtype="F8_E4M3"))
    yield "beyond", "a tensor beyond the end", lying(lambda header: first(header).update(data_offsets=[0, 10**12]))
    yield (
        "renamed",
        "a tensor of another name",
        lying(lambda header: header.update(other=header.pop(next(name for name in header if name != "__metadata__")))),
    )
    yield "nan", "a tensor that is not finite", _not_finite


def _not_finite(path: Path) -> None:
    import safetensors.numpy

    tensors = safetensors.numpy.load_file(path)
    name = max(tensors, key=lambda one: tensors[one].size)
    tensors[name] = np.full_like(tensors[name], np.nan)
    safetensors.numpy.save_file(tensors, path, {"format": "pt"})


def _pickles() -> Iterator[Attack]:
    yield "code", "a pickle that runs code", _written(pickle.dumps(Payload()))

    def in_archive(path: Path) -> None:
        import torch

        torch.save({"linear.weight": Payload()}, path)

    yield "code-inside", "torch's archive with a pickle that runs code", in_archive

    def nested(path: Path) -> None:
        import torch

        torch.save({"model": {"inner": [torch.zeros(3)]}}, path)

    yield "nested", "a nested object in place of a state dict", nested


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


KINDS: dict[str, Callable[[], Iterator[Attack]]] = {
    ".png": _pngs, ".jpg": _jpegs, ".bmp": _bmps, ".gif": _gifs, ".wav": _wavs, ".flac": _flacs, ".npy": _npys,
    ".npz": _npzs, ".safetensors": _tensors, ".bin": _pickles, ".pt": _pickles, ".ckpt": _pickles,
}  # fmt: skip
