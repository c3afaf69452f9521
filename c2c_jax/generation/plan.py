"""Plans which sounds are made of which images, and where their files go."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import soundfile

from c2c_jax.errors import ConfigError
from c2c_jax.io.audio_output import SOFTWARE
from c2c_jax.io.files import is_regular
from c2c_jax.io.output_paths import require_output_file

AUDIO_SUFFIXES = (".wav", ".flac")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Input:
    """What one sound is made of: an image, or those of a folder, such as the frames of a video. out: the sound's file.
    control: a text whose own sound is written too."""

    pictures: tuple[Path, ...]
    out: Path
    control: str | None = None


def plan(
    paths: Sequence[Path],
    *,
    average: bool = False,
    out: Path | None = None,
    roots: Sequence[Path] = (),
    sound_format: str | None = None,
    controls: Sequence[str] = (),
    candidates: int = 1,
) -> list[Input]:
    """Which sounds are made of which images, and where they go: beside them, into the folder `out`, or, if there is
    only one, into the file `out`. average: one sound for all images of a folder. roots: folders the user named; the
    folders inside them are made in `out` again. controls: one text for each sound, or one for all.

    Raises ConfigError if two files of different sounds would have one name, or numbers do not fit.
    """
    groups: dict[Path, list[Path]] = {}
    for path in paths:
        groups.setdefault(path.absolute().parent if average else path, []).append(path)
    if len(controls) not in (0, 1, len(groups)):
        raise ConfigError(f"{len(groups)} sounds and {len(controls)} --control texts: give one, or as many")
    is_file = out is not None and out.suffix.lower() in AUDIO_SUFFIXES
    if out and is_file and len(groups) > 1:
        raise ConfigError(f"{len(groups)} sounds and one file {out}: pass a folder with --out")
    if out and is_file and sound_format and out.suffix.lower() != f".{sound_format}":
        raise ConfigError(f"--out {out} and --format {sound_format} contradict each other: leave one out")
    if out and not is_file and out.suffix and not out.is_dir():
        raise ConfigError(f"--out {out} ends in {out.suffix}: pass a .wav or .flac file, or a folder")
    inputs: list[Input] = []
    group_of: dict[Path, Path] = {}  # by sound file without its suffix
    for number, (group, pictures) in enumerate(groups.items()):
        name = f"{group.name if average else group.stem}.{sound_format or 'wav'}"
        folder = out / _inside(group, roots) if out else group.parent
        place = out if out and is_file else folder / name
        control = controls[number % len(controls)] if controls else None
        inputs.append(Input(pictures=tuple(pictures), out=place, control=control))
        for file in audio_paths(inputs[-1], candidates):
            if (other := group_of.setdefault(file.with_suffix(""), group)) != group:
                raise ConfigError(f"{other} and {group} would both be written to {file}: rename one of them")
    return inputs


def _inside(path: Path, roots: Sequence[Path]) -> Path:
    """The folders between a root and a file in it; none for a file of no root."""
    absolute = path.absolute().parent
    return next((absolute.relative_to(r.absolute()) for r in roots if absolute.is_relative_to(r.absolute())), Path())


def require_places(inputs: Sequence[Input], candidates: int, read: Sequence[Path]) -> None:
    """Raises ConfigError if a sound, its spectrogram or its record cannot be written, or would replace a file that is
    read or a sound that c2c_jax did not make."""
    for one in inputs:
        for file in audio_paths(one, candidates):
            for place in (file, spectrogram_file(file), record_file(file)):
                require_output_file(place, "the sound's file", read)
            if is_regular(file) and not _is_own(file):
                raise ConfigError(f"{file} exists and was not written by c2c infer: move it, or pass another --out")


def require_embedding_place(path: Path, read: Sequence[Path]) -> None:
    """Raises ConfigError if the vectors cannot be written, or would replace a file that is not an .npy file."""
    require_output_file(path, "--save-embedding", read)
    if is_regular(path) and path.stat().st_size:
        with open(path, "rb") as file:
            if file.read(6) != b"\x93NUMPY":
                raise ConfigError(f"--save-embedding {path} exists and is not an .npy file: pass another file")


def _is_own(sound: Path) -> bool:
    if is_regular(record_file(sound)) or not sound.stat().st_size:
        return True
    try:
        with soundfile.SoundFile(os.fsencode(sound)) as file:
            return file.software.startswith(SOFTWARE)
    except soundfile.SoundFileError:
        return False


def audio_paths(one: Input, candidates: int) -> Iterator[Path]:
    """The sound files of an input: each candidate, of the images and of the control."""
    for sound in [one.out, control_file(one.out)] if one.control else [one.out]:
        for place in range(candidates):
            yield numbered(sound, place)


def numbered(out: Path, place: int) -> Path:
    """The file of a candidate by its place from 0: NAME.wav, NAME.2.wav, NAME.3.wav."""
    return out.with_name(f"{out.stem}.{place + 1}{out.suffix}") if place else out


def control_file(out: Path) -> Path:
    """The file of a sound's control: NAME.control.wav."""
    return out.with_name(f"{out.stem}.control{out.suffix}")


def record_file(sound: Path) -> Path:
    """The file of a sound's record: NAME.sound.json."""
    return sound.with_suffix(".sound.json")


def spectrogram_file(sound: Path) -> Path:
    """The file of a sound's mel-spectrogram: NAME.mel.png."""
    return sound.with_suffix(".mel.png")
