"""Who serves a mount, how far it is, and what an unmount says about it."""

import os
import stat
import subprocess
import sys
import threading

import pytest
from tidefs.client import mounts, notes, unmounting
from tidefs.client.mounts import Mount
from tidefs.fs.errors import Code, TideError

MOUNT = Mount("/mnt", mounts.TYPE, "tidefs:x", "0:48")

SERVER = f"""if True:
    import sys
    from pathlib import Path
    from tidefs.client import notes
    from tidefs.client.mounts import Mount
    folder = Path(sys.argv[1])
    notes.runtime_folder = lambda: folder
    note = notes.NoteFile(Mount(*{tuple(MOUNT)!r}), "kernel")
    print("ready", flush=True)
    for line in sys.stdin:
        exec(line)
        print("done", flush=True)
"""


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    monkeypatch.setattr(notes, "runtime_folder", lambda: folder)
    folder.mkdir()
    return folder


class Server:
    """A process that serves MOUNT, as far as its note is concerned."""

    def __init__(self, folder):
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"

    def do(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"


@pytest.fixture
def server(runtime):
    server = Server(runtime)
    with server.process:
        yield server
        server.process.kill()


def test_a_living_server_is_known_until_its_note_goes(runtime):
    assert notes.note_of(MOUNT) is None
    note = notes.NoteFile(MOUNT, "kernel")
    assert notes.note_of(MOUNT).pid == os.getpid()
    assert notes.note_of(MOUNT).driver == "kernel"
    assert notes.note_of(MOUNT._replace(point="/other")) is None
    (file,) = runtime.iterdir()
    note.stand(10**9, "x" * 5_000)
    assert notes.note_of(MOUNT).unwritten_bytes == 10**9
    text = file.read_text()
    file.write_text(text.replace(str(os.getpid()), "1"))
    assert notes.note_of(MOUNT) is None, "another process has that number now"
    file.write_text("{")
    assert notes.note_of(MOUNT) is None
    note.close("")
    assert not file.exists()


def test_a_note_about_the_next_mount_with_that_number_stays(runtime):
    first = notes.NoteFile(MOUNT, "kernel")
    second = notes.NoteFile(MOUNT._replace(point="/other"), "kernel")
    first.close("")
    assert notes.note_of(MOUNT._replace(point="/other")) is not None
    second.close("")
    assert list(runtime.iterdir()) == []


def test_the_last_word_can_be_read_when_the_note_is_gone(server):
    watch = notes.watch(MOUNT)
    server.do("note.stand(5, 'servers')")
    assert watch.look().waits_for == "servers"
    server.do("note.close('5 bytes are lost')")
    assert notes.watch(MOUNT) is None
    assert watch.look().outcome == "5 bytes are lost"
    watch.close()


class Unmounting:
    """An unmount in a thread: what it tells, and how it ends."""

    def __init__(self, monkeypatch):
        self.said = []
        self.news = threading.Event()
        self.failure = None
        monkeypatch.setattr(unmounting, "find", lambda path: (path, MOUNT))
        monkeypatch.setattr(unmounting, "SAY_EACH", 1)
        monkeypatch.setattr(unmounting, "LOOK_MS", 10)
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            unmounting.unmount("/mnt", tell=self._tell)
        except TideError as error:
            self.failure = error

    def _tell(self, text):
        self.said.append(text)
        self.news.set()

    def wait_for(self, word):
        while not any(word in text for text in self.said):
            assert self.news.wait(60), self.said
            self.news.clear()

    def join(self):
        self.thread.join(60)
        assert not self.thread.is_alive()


def test_an_unmount_tells_what_it_waits_for(server, monkeypatch):
    monkeypatch.setattr(unmounting, "detach", lambda point, *, lazy: None)
    server.do(f"note.stand({3 << 20}, 'chunkserver 1f is not there')")
    one = Unmounting(monkeypatch)
    one.thread.start()
    one.wait_for("3 MiB to be written (chunkserver 1f is not there)")
    server.do("note.stand(0, '')")
    one.wait_for("session to be closed")
    server.do("note.close('')")
    one.wait_for("servers that it started")
    assert one.thread.is_alive()
    server.process.stdin.close()
    one.join()
    assert one.failure is None


def test_an_unmount_tells_while_the_kernel_waits(server, monkeypatch):
    go_on = threading.Event()

    def detach(point, *, lazy):
        assert go_on.wait(60)
        raise TideError(Code.BUSY, "in use")

    monkeypatch.setattr(unmounting, "detach", detach)
    one = Unmounting(monkeypatch)
    server.do("note.stand(5, 'servers')")
    one.thread.start()
    one.wait_for("(servers)")
    go_on.set()
    one.join()
    assert one.failure.code is Code.BUSY


@pytest.mark.parametrize("how", ["lost", "killed"])
def test_what_was_lost_at_the_end_fails_the_unmount(how, server, monkeypatch):
    def detach(point, *, lazy):
        if how == "lost":
            server.do("note.close('5 bytes are lost')")
        server.process.kill()

    monkeypatch.setattr(unmounting, "detach", detach)
    one = Unmounting(monkeypatch)
    one.thread.start()
    one.join()
    assert one.failure.code is Code.DEVICE_ERROR
    assert ("5 bytes are lost" if how == "lost" else "was killed") in str(one.failure)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")
def test_the_runtime_folder_must_be_our_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(notes.os, "geteuid", lambda: 1234)
    with pytest.raises(TideError) as failed:
        notes.runtime_folder()
    assert failed.value.code is Code.ACCESS_DENIED
    assert str(tmp_path) in str(failed.value)
    os.chown(tmp_path / "tidefs", 1234, 1234)
    assert stat.S_IMODE(notes.runtime_folder().stat().st_mode) == 0o700
    (tmp_path / "tidefs").chmod(0o777)
    with pytest.raises(TideError):
        notes.runtime_folder()


def test_what_is_not_ours_is_not_unmounted(tmp_path):
    for path, said in ((str(tmp_path), "not mounted"), ("/proc", "proc")):
        with pytest.raises(TideError) as failed:
            unmounting.unmount(path)
        assert failed.value.code is Code.INVALID
        assert said in str(failed.value)
    assert os.path.ismount("/proc")
