"""Verbs on a full or read-only disk: refused in one line, nothing lost, and right once there is room.

As root the disk is a small one in memory, and a folder is made read-only by mounting it so; else a limit on the size of
files and the folder's permissions stand for them.
"""

import contextlib
import functools
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.campaign import steps
from tools.campaign.cases import Case, Context, Outcome
from tools.campaign.kills import again
from tools.campaign.process import Ended
from tools.campaign.verbs import VERBS, Verb, prepare, snapshot, unbroken

SHARES = (0.0, 0.3, 0.9)  # of the room that a verb needs


def cases(context: Context, names: Sequence[str] = tuple(VERBS)) -> list[Case]:
    """Three full disks and one read-only folder for each verb of one process."""
    found = []
    for one in (VERBS[name] for name in names if VERBS[name].processes == 1):
        for share in SHARES:
            found.append(
                Case(
                    key=f"disks-{one.name}-{share:g}", kind="full disk", group=one.name,
                    how=f"room for {share:.0%} of what it writes", flags="disks",
                    run=functools.partial(_full, one, share),
                )
            )  # fmt: skip
        found.append(
            Case(
                key=f"disks-{one.name}-read-only", kind="read-only", group=one.name, how="a read-only folder",
                flags="disks", run=functools.partial(_read_only, one),
            )
        )  # fmt: skip
    return found


def can_mount() -> bool:
    """Whether this process may mount: root, outside of most containers."""
    probe = Path("/proc/self/mountinfo")
    if os.geteuid() or not probe.exists():
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def _mounted(target: Path, *options: str) -> Iterator[None]:
    subprocess.run(["mount", *options, str(target)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=True)


def _full(one: Verb, share: float, context: Context, place: Path) -> Outcome:
    known = unbroken(one, context.inputs, context.unbroken)
    written = context.unbroken / f"{one.name}.0" / "folder"
    if not can_mount():
        largest = max(path.stat().st_size for path in written.rglob("*") if path.is_file())
        folder = prepare(one, context.inputs, place / "folder")
        ended = one.run(folder, place / "log", lambda: steps.no_room_beyond(int(share * largest)))
        return _judged(one, ended, again(one, known, folder, place / "log"))
    disk = place / "disk"
    disk.mkdir()
    with _mounted(disk, "-t", "tmpfs", "-o", "size=1g", "tmpfs"):
        folder = prepare(one, context.inputs, disk / "folder")
        before = _used(disk)
        room = max(_size(written) - _size(folder), 8192)
        size = max(before + int(share * room), 4096)  # 0 would be no limit, for good
        subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
        ended = one.run(folder, place / "log")
        kept = [("lost", f"on the full disk {name} changed") for name in _changed(one, folder, context)]
        subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
        return _judged(one, ended, kept + again(one, known, folder, place / "log"))


def _read_only(one: Verb, context: Context, place: Path) -> Outcome:
    known = unbroken(one, context.inputs, context.unbroken)
    folder = prepare(one, context.inputs, place / "folder")
    before = snapshot(folder)
    with _write_protected(folder):
        ended = one.run(folder, place / "log")
    kept = [("lost", "the read-only folder changed")] if snapshot(folder) != before else []
    faults = kept + again(one, known, folder, place / "log")
    if ended[0].code == 0:
        faults.append(("wrong in silence", "it ends with 0 where nothing could be written"))
    return _judged(one, ended, faults)


@contextlib.contextmanager
def _write_protected(folder: Path) -> Iterator[None]:
    if can_mount():
        with _mounted(folder, "--bind", str(folder)):
            subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
            yield
        return
    if not os.geteuid():
        yield  # permissions do not hold root back
        return
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    try:
        yield
    finally:
        for path in folders:
            path.chmod(0o755)


def _judged(one: Verb, ended: Sequence[Ended], faults: list[tuple[str, str]]) -> Outcome:
    end = ended[0]
    if end.why:
        faults.insert(0, (end.why, "on the disk without room"))
    elif "Traceback" in end.err or end.code not in (0, 2):
        faults.insert(0, ("traceback", f"ends with {end.code}: {end.err[-2000:]}"))
    elif end.code == 2 and not (end.lines and end.lines[-1].startswith(f"c2c {one.argv[0]}: ")):
        faults.insert(0, ("traceback", f"no line of its own at the end: {end.lines[-1:]}"))
    if not faults:
        return Outcome(verdict="refused" if end.code else "right", cpu=end.cpu)
    what = f"{end.lines[-1] if end.lines else ''}\n" + "\n".join(line for _, line in faults)
    return Outcome(verdict=faults[0][0], what=what, cpu=end.cpu)


def _changed(one: Verb, folder: Path, context: Context) -> list[str]:
    """Those inputs that are not as they were, nor as an unbroken run leaves them. What a repair mends may change."""
    known = unbroken(one, context.inputs, context.unbroken)
    if one.name == "repair":
        return []
    now, names = snapshot(folder), []
    for entry in one.needs:
        name, _, kind = entry.partition("=")
        source = context.inputs[kind or name]
        before = snapshot(source) if source.is_dir() else snapshot(source.parent)
        for inner, digest in before.items():
            path = f"{name}/{inner}" if source.is_dir() else name
            if (source.is_dir() or inner == source.name) and now.get(path) not in (digest, known.files.get(path)):
                names.append(path)
    return names


def _used(disk: Path) -> int:
    status = os.statvfs(disk)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def _size(folder: Path) -> int:
    """Bytes in whole pages, as a disk in memory takes them."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())
