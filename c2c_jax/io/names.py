r"""Splits names such as `FOLDER:SUBFOLDER` and `FILE.py:PRESET`, in which a Windows path may contain a colon.

All functions work on strings only and give the same results on every system, because names also come from files that
were written on another system.
"""

import re
from pathlib import PurePath, PureWindowsPath

# Every colon except that of a drive: `C:\` or `C:/` at the start of a part, or after `\\?\`.
_COLON = re.compile(r":(?:(?![\\/])|(?<!^[A-Za-z]:)(?<!:[A-Za-z]:)(?<!\\[?.]\\[A-Za-z]:))")
_PATH_START = re.compile(r"[./~\\]|[A-Za-z]:[\\/]")
_WINDOWS_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?", re.IGNORECASE | re.DOTALL)
_WINDOWS_FORBIDDEN = re.compile(r'[\x00-\x1f<>:"/\\|?*]')


def split_name(name: str) -> list[str]:
    r"""Splits a name at its colons, except that of a drive: `C:\ldm:text_encoder` → [`C:\ldm`, `text_encoder`]."""
    return _COLON.split(name)


def split_suffix(name: str) -> tuple[str, str]:
    r"""Splits a name at its last colon, except that of a drive: `C:\ldm:text_encoder` → (`C:\ldm`, `text_encoder`).
    The second part is "" for a name without such a colon."""
    *first, last = split_name(name)
    return (name.removesuffix(f":{last}"), last) if first else (name, "")


def is_path_only(name: str) -> bool:
    r"""Whether a name can only be a local path, not a hub name: it starts with `/`, `.`, `~` or a drive, or contains a
    backslash or two slashes."""
    return bool(_PATH_START.match(name)) or "\\" in name or name.count("/") > 1


def last_component(path: str) -> str:
    """The last component of a path of any system; "" if it has none."""
    return (PureWindowsPath if "\\" in path else PurePath)(path).name


def windows_name_fault(name: str) -> str:
    """Says why Windows cannot use a file name, in words that follow the name in a message; "" if it can.

    Windows raises no error for some of these names: with a colon, data goes into a hidden stream of another file.
    """
    if match := _WINDOWS_FORBIDDEN.search(name):
        return f"contains {match[0]!r}, which Windows does not allow"
    if name.endswith((".", " ")) and name.strip("."):
        return "ends with a dot or a space, which Windows drops"
    return "is reserved for a device on Windows" if _WINDOWS_DEVICE.fullmatch(name) else ""
