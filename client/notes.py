"""Who serves each mount, and how far it is with what was written: a small file for each.

They lie in /run/tidefs for root, else in $XDG_RUNTIME_DIR/tidefs, or in a folder of the user's own
below the temporary one. Whoever unmounts opens the file before, and reads there until the process
has ended; the process takes the name away at its end, and the last word can still be read.
"""

import os
import stat
import tempfile
from pathlib import Path

import msgspec

from ..fs.errors import Code, TideError
from ..fs.quantities import format_size
from .mounts import Mount

NOTE_MAX_BYTES = 4096
"""Written with one call, and padded with spaces: a reader sees one note or the other."""


class Note(msgspec.Struct, frozen=True):
    """What is written about one mount. ``began``: the start of its process in clock ticks since
    the machine's."""

    pid: int
    began: int
    point: str
    driver: str
    unwritten_bytes: int = 0
    waits_for: str = ""
    outcome: str | None = None
    """Once all is over, what was lost, in words; empty: nothing was."""


class NoteFile:
    """The note about a mount that this process serves. Each change is written at once."""

    def __init__(self, mount: Mount, driver: str) -> None:
        pid = os.getpid()
        self._note = Note(pid, began(pid) or 0, mount.point, driver)
        self._path = runtime_folder() / _name_of(mount)
        new = self._path.with_suffix(f".{pid}")
        self._file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._write()
        new.rename(self._path)

    def stand(self, unwritten_bytes: int, waits_for: str) -> None:
        """How it stands now."""
        self._change(unwritten_bytes=unwritten_bytes, waits_for=waits_for[:1_000])

    def close(self, outcome: str) -> None:
        """The last word, and the end of the file's name."""
        self._change(unwritten_bytes=0, waits_for="", outcome=outcome[:1_000])
        try:
            if self._path.stat().st_ino == os.fstat(self._file).st_ino:
                self._path.unlink()  # else it is about another mount by now
        except FileNotFoundError:
            pass
        os.close(self._file)

    def _change(self, **changes: int | str) -> None:
        note = msgspec.structs.replace(self._note, **changes)
        if note != self._note:
            self._note = note
            self._write()

    def _write(self) -> None:
        os.pwrite(self._file, msgspec.json.encode(self._note).ljust(NOTE_MAX_BYTES), 0)


def note_of(mount: Mount) -> Note | None:
    """The note about a mount whose process lives."""
    file = _open(mount)
    if file is None:
        return None
    try:
        return _living(mount, file)
    finally:
        os.close(file)


def _living(mount: Mount, file: int) -> Note | None:
    note = _read(os.pread(file, NOTE_MAX_BYTES, 0))
    if note is None or note.point != mount.point or began(note.pid) != note.began:
        return None
    return note


def _open(mount: Mount) -> int | None:
    """The note, opened: where this user keeps them, and for root also where the mount's owner
    does, whom it does not trust: there may lie anything."""
    folders = [runtime_folder()]
    if os.geteuid() == 0 and mount.owner != 0:
        folders += [Path(f"/run/user/{mount.owner}/tidefs"), _temporary(mount.owner)]
    for folder in folders:
        try:
            return os.open(
                folder / _name_of(mount),
                os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK,
            )
        except OSError:
            continue
    return None


class Watch:
    """Looks at the process that serves a mount until it has ended. Close it."""

    def __init__(self, note: Note, file: int, process: int) -> None:
        self.note = note
        self.process = process
        """A descriptor of the process (pidfd_open(2))."""
        self._file = file

    def look(self) -> Note:
        """How it stands, or the last word."""
        self.note = _read(os.pread(self._file, NOTE_MAX_BYTES, 0)) or self.note
        return self.note

    def close(self) -> None:
        os.close(self._file)
        os.close(self.process)


def watch(mount: Mount) -> Watch | None:
    """To watch the process that serves ``mount``; None when there is none, or none is known."""
    file = _open(mount)
    if file is None:
        return None
    note = _living(mount, file)
    try:
        if note is not None:
            return Watch(note, file, os.pidfd_open(note.pid))
    except ProcessLookupError:
        pass
    os.close(file)
    return None


def _read(text: bytes) -> Note | None:
    try:
        return msgspec.json.decode(text, type=Note)
    except msgspec.DecodeError:
        return None


def _name_of(mount: Mount) -> str:
    return f"mount-{mount.device.replace(':', '-')}.json"


def waiting_for(unwritten_bytes: int, waits_for: str) -> str:
    """What the end of a mount waits for, for a person."""
    what = "the session to be closed"
    if unwritten_bytes:
        what = f"{format_size(unwritten_bytes)} to be written"
    return f"{what} ({waits_for})" if waits_for else what


def began(pid: int) -> int | None:
    """When a process began; None when it is gone (proc(5): stat, field 22)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = text.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])


def runtime_folder() -> Path:
    """The folder for our small files, made when it is not there; only for this user."""
    uid = os.geteuid()
    if uid == 0:
        folder = Path("/run/tidefs")
    elif given := os.environ.get("XDG_RUNTIME_DIR"):
        folder = Path(given) / "tidefs"
    else:
        folder = _temporary(uid)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise TideError(Code.ACCESS_DENIED, f"{folder}: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or found.st_mode & 0o022:
        raise TideError(
            Code.ACCESS_DENIED,
            f"{folder} must be a folder of user {uid} that nobody else may write to: remove it",
        )
    return folder


def _temporary(uid: int) -> Path:
    return Path(tempfile.gettempdir()) / f"tidefs-{uid}"
