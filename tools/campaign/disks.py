"""Runs verbs on a full or read-only disk: they must fail with one line, lose nothing, and succeed once there is room.

As root, the disk is a small tmpfs; otherwise a limit on file sizes replaces it.
"""

import contextlib
import functools
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tools.campaign import steps
from tools.campaign.cases import Case, Context, Outcome
from tools.campaign.kills import Fault, again
from tools.campaign.process import Exit
from tools.campaign.verbs import VERBS, Verb, prepare, snapshot, undisturbed

FRACTIONS = (0.0, 0.3, 0.9)  # of the space that a verb needs


def cases(context: Context, names: Sequence[str], count: int, seed: int) -> list[Case]:
    """Returns a case for each verb of one process and each of three full disks and a read-only folder."""
    setups: list[tuple[str, str, str, Callable[..., Outcome]]] = [
        (f"{x:g}", "full disk", f"room for {x:.0%} of what it writes", functools.partial(_full, fraction=x))
        for x in FRACTIONS
    ]
    setups.append(("read-only", "read-only", "a read-only folder", _read_only))
    return [
        Case(key=f"disks-{name}-{key}", kind=kind, group=name, how=how, run=functools.partial(run, VERBS[name]))
        for name in names
        if VERBS[name].processes == 1
        for key, kind, how, run in setups
    ]


def can_mount() -> bool:
    """Whether this process may mount file systems: root, outside of most containers."""
    if os.geteuid() or not Path("/proc/self/mountinfo").exists():
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def _mounted(disk: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def _full(verb: Verb, context: Context, place: Path, fraction: float) -> Outcome:
    known = undisturbed(verb, context.inputs, context.undisturbed)
    written = context.undisturbed / f"{verb.name}.0" / "folder"
    if not can_mount():
        largest = max(path.stat().st_size for path in written.rglob("*") if path.is_file())
        folder = prepare(verb, context.inputs, place / "folder")
        ended = verb.run(folder, place / "log", lambda: steps.fail_writes_beyond(int(fraction * largest)))
        return _judge(verb, ended, again(verb, known, folder, place / "log"))
    disk = place / "disk"
    disk.mkdir()
    with _mounted(disk):
        folder = prepare(verb, context.inputs, disk / "folder")
        status = os.statvfs(disk)
        room = max(_size(written) - _size(folder), 8192)
        size = (status.f_blocks - status.f_bfree) * status.f_frsize + int(fraction * room)
        _resize(disk, str(max(size, 4096)))  # 0 means no limit
        ended = verb.run(folder, place / "log")
        kept = [("lost", f"on the full disk {name} changed") for name in _changed(verb, folder, context)]
        _resize(disk, "1g")
        return _judge(verb, ended, kept + again(verb, known, folder, place / "log"))


def _read_only(verb: Verb, context: Context, place: Path) -> Outcome:
    known = undisturbed(verb, context.inputs, context.undisturbed)
    folder = prepare(verb, context.inputs, place / "folder")
    before = snapshot(folder)
    modes = {path: path.stat().st_mode for path in (folder, *folder.rglob("*"))}
    for path, mode in modes.items():
        path.chmod(mode & 0o555)
    ended = verb.run(folder, place / "log", steps.drop_privileges)
    for path, mode in modes.items():
        path.chmod(mode)
    kept = [("lost", "the read-only folder changed")] if snapshot(folder) != before else []
    faults = kept + again(verb, known, folder, place / "log")
    if ended[0].code == 0:
        faults.append(("wrong in silence", "it ends with 0 where nothing could be written"))
    return _judge(verb, ended, faults)


def _judge(verb: Verb, ended: Sequence[Exit], faults: list[Fault]) -> Outcome:
    (end,) = ended
    if end.why:
        faults.insert(0, (end.why, "on the disk without room"))
    elif fault := verb.unclean(end):
        faults.insert(0, ("traceback", fault))
    if not faults:
        return Outcome(verdict="refused" if end.code else "right", cpu=end.cpu)
    what = "\n".join([end.last, *(line for _, line in faults)])
    return Outcome(verdict=faults[0][0], what=what, cpu=end.cpu)


def _changed(verb: Verb, folder: Path, context: Context) -> list[str]:
    """Returns the inputs that differ both from the originals and from those after an undisturbed run. `repair` may
    change its inputs."""
    if verb.name == "repair":
        return []
    known = undisturbed(verb, context.inputs, context.undisturbed)
    now, names = snapshot(folder), []
    for entry in verb.needs:
        name, _, kind = entry.partition("=")
        source = context.inputs[kind or name]
        before = snapshot(source) if source.is_dir() else snapshot(source.parent)
        for inner, digest in before.items():
            path = f"{name}/{inner}" if source.is_dir() else name
            if (source.is_dir() or inner == source.name) and now.get(path) not in (digest, known.files.get(path)):
                names.append(path)
    return names


def _size(folder: Path) -> int:
    """Returns the size of a folder in bytes, in whole pages as on a tmpfs."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())
