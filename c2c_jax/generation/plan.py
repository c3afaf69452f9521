"""Assigns images to sounds, and sounds to output files."""

import dataclasses
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import soundfile

from c2c_jax.errors import ConfigError
from c2c_jax.io import system
from c2c_jax.io.audio_output import SOFTWARE
from c2c_jax.io.files import is_regular
from c2c_jax.io.output_paths import require_output_file

AUDIO_SUFFIXES = (".wav", ".flac")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Input:
    """The images of one sound: a single one, or those of a folder, such as video frames.

    out: the sound's file. control: a text that also gets a sound, for comparison.
    """

    images: tuple[Path, ...]
    out: Path
    control: str | None = None


def plan(
    paths: Sequence[Path],
    *,
    average: bool = False,
    out: Path | None = None,
    roots: Sequence[Path] = (),
    audio_format: str | None = None,
    controls: Sequence[str] = (),
    candidates: int = 1,
) -> list[Input]:
    """Assigns images to sounds and sounds to files: next to the images, in the folder `out`, or, for a single sound, at
    the file `out`.

    average: one sound for all images of a folder. roots: input folders whose subfolders are recreated in `out`.
    audio_format: "wav", "flac" or None (wav). controls: one text for each sound, or one for all. candidates: sounds for
    each input.
    Raises ConfigError if sounds of different inputs would have the same name, or if arguments contradict each other.
    """
    groups: dict[Path, list[Path]] = {}
    for path in paths:
        groups.setdefault(path.absolute().parent if average else path, []).append(path)
    if len(controls) not in (0, 1, len(groups)):
        raise ConfigError(f"{len(groups)} sounds and {len(controls)} --control texts: pass one, or one for each sound")
    is_file = out is not None and out.suffix.lower() in AUDIO_SUFFIXES
    if out and is_file and len(groups) > 1:
        raise ConfigError(f"{len(groups)} sounds and one file {out}: pass a folder as --out")
    if out and is_file and audio_format and out.suffix.lower() != f".{audio_format}":
        raise ConfigError(f"--out {out} and --format {audio_format} contradict each other: leave one out")
    if out and not is_file and out.suffix and not out.is_dir():
        raise ConfigError(f"--out {out} ends in {out.suffix}: pass a .wav or .flac file, or a folder")
    inputs: list[Input] = []
    group_of: dict[str, Path] = {}  # by `_file_key` of the output path
    for number, (group, images) in enumerate(groups.items()):
        name = f"{group.name if average else group.stem}.{audio_format or 'wav'}"
        folder = out / _subfolders(group, roots) if out else group.parent
        path = out if out and is_file else folder / name
        control = controls[number % len(controls)] if controls else None
        inputs.append(Input(images=tuple(images), out=path, control=control))
        for file in audio_paths(inputs[-1], candidates):
            if (other := group_of.setdefault(_file_key(file), group)) != group:
                raise ConfigError(f"{other} and {group} would both be written to {file}: rename one of them")
    return inputs


def _file_key(file: Path) -> str:
    """A key for an output path without its suffix. On systems that ignore case, all spellings of a path have the same
    key."""
    name = str(file.with_suffix(""))
    return unicodedata.normalize("NFC", name).casefold() if system.IGNORES_CASE else name


def _subfolders(path: Path, roots: Sequence[Path]) -> Path:
    """Returns the path of a file's folder relative to the root that contains it; empty without such a root."""
    absolute = path.absolute().parent
    return next((absolute.relative_to(r.absolute()) for r in roots if absolute.is_relative_to(r.absolute())), Path())


def require_places(inputs: Sequence[Input], candidates: int, read: Sequence[Path]) -> None:
    """Raises ConfigError if a sound, its spectrogram or its record cannot be written, or would replace an input file or
    a sound that c2c_jax did not write. read: the input files."""
    for item in inputs:
        for file in audio_paths(item, candidates):
            for path in (file, spectrogram_file(file), record_file(file)):
                require_output_file(path, "the sound's file", read)
            if is_regular(file) and not _is_ours(file):
                raise ConfigError(f"{file} exists and was not written by c2c infer: move it, or pass another --out")


def require_embedding_place(path: Path, read: Sequence[Path]) -> None:
    """Raises ConfigError if the vectors cannot be written, or would replace an input file or another kind of file."""
    require_output_file(path, "--save-embedding", read)
    if is_regular(path) and path.stat().st_size:
        with open(path, "rb") as file:
            if file.read(6) != b"\x93NUMPY":
                raise ConfigError(f"--save-embedding {path} exists and is not an .npy file: pass another file")


def _is_ours(audio: Path) -> bool:
    if is_regular(record_file(audio)) or not audio.stat().st_size:
        return True
    try:
        with open(audio, "rb") as opened, soundfile.SoundFile(opened) as file:
            return file.software.startswith(SOFTWARE)
    except (OSError, soundfile.SoundFileError):
        return False


def audio_paths(item: Input, candidates: int) -> Iterator[Path]:
    """Yields the sound files of an input: each candidate of the images, then of the control."""
    for audio in [item.out, control_file(item.out)] if item.control else [item.out]:
        for rank in range(candidates):
            yield candidate_file(audio, rank)


def candidate_file(out: Path, rank: int) -> Path:
    """Returns the file of a candidate by its rank from 0: NAME.wav, NAME.2.wav, NAME.3.wav."""
    return out.with_name(f"{out.stem}.{rank + 1}{out.suffix}") if rank else out


def control_file(out: Path) -> Path:
    """Returns the file of a sound's control: NAME.control.wav."""
    return out.with_name(f"{out.stem}.control{out.suffix}")


def record_file(audio: Path) -> Path:
    """Returns the file of a sound's record: NAME.sound.json."""
    return audio.with_suffix(".sound.json")


def spectrogram_file(audio: Path) -> Path:
    """Returns the file of a sound's mel-spectrogram: NAME.mel.png."""
    return audio.with_suffix(".mel.png")
