"""A cluster of server processes on this machine, kept in a folder: start it, stop it, find it."""

import os
import shutil
import socket
import stat
from contextlib import suppress
from pathlib import Path

from ..client.mounts import runtime_folder
from ..fs.messages.hello import METASERVER
from .exits import Exit, Failure
from .folder import (
    ClusterFile,
    Member,
    Say,
    Shape,
    check_vacant,
    create,
    is_cluster,
    os_failures,
    read,
    toml_lines,
    write_safely,
)
from .processes import Spawned, end, is_ours, pid_of_server, spawn_server, wait_ready

LOOPBACK = "127.0.0.1"
SOCKET_PATH_MAX_BYTES = 100
"""A little less than what fits into a sockaddr_un (unix(7): 108 with the final zero)."""


class Cluster:
    """The cluster in ``folder`` (absolute, without links)."""

    def __init__(self, folder: Path, file: ClusterFile) -> None:
        self.folder = folder
        self.file = file

    def home(self, member: Member) -> Path:
        """The member's own folder."""
        return self.home_of(member.name)

    def home_of(self, name: str) -> Path:
        """The folder of the member of that name."""
        return self.folder / name

    def members(self, role: str) -> list[Member]:
        """All of one role."""
        return [member for member in self.file.members if member.role == role]

    def addresses(self, member: Member) -> list[str]:
        """How to reach a member, the best way first."""
        found = [f"unix:{self.socket_folder() / (member.name + '.sock')}"]
        if member.port:
            found.append(f"tcp:{LOOPBACK}:{member.port}")
        return found

    def metaserver_addresses(self) -> list[str]:
        """How to reach the metaservers."""
        return [
            address for member in self.members(METASERVER) for address in self.addresses(member)
        ]

    def running(self) -> dict[str, int]:
        """Process ids of the members that run, by name."""
        pids = {one.name: pid_of_server(one.role, self.home(one)) for one in self.file.members}
        return {name: pid for name, pid in pids.items() if pid is not None}

    def start(self, say: Say) -> list[str]:
        """Start the members that do not run and wait until they are ready; their names.

        Call it with the folder locked.
        """
        running = self.running()
        missing = [member for member in self.file.members if member.name not in running]
        for member in missing:
            self._check_port(member)
        self._make_socket_folder()
        starting: list[Spawned] = []
        for member in missing:
            home = self.home(member)
            with os_failures(home):
                home.mkdir(mode=0o700, exist_ok=True)
            write_safely(home / "config.toml", self._config(member))
            starting.append(spawn_server(member.role, member.name, home))
        wait_ready(starting, say)
        return [member.name for member in missing]

    def stop(self, say: Say, *, kill: bool = False) -> list[str]:
        """Stop the members that run and wait for their end; their names. Call it locked."""
        running = self.running()
        roles = {member.name: member.role for member in self.file.members}
        end(
            running,
            say,
            kill=kill,
            still_ours=lambda name, pid: is_ours(pid, roles[name], self.home_of(name)),
        )
        for name in running:
            (self.home_of(name) / "pid").unlink(missing_ok=True)
        self._remove_short_folder()
        return list(running)

    def socket_folder(self) -> Path:
        """Where the sockets are: ``run`` in the folder, or where that link leads."""
        run = self.folder / "run"
        with os_failures(self.folder):
            return Path(os.readlink(run)) if run.is_symlink() else run

    def _make_socket_folder(self) -> None:
        """Make ``run``; a link to a folder with a short path when its own is too long."""
        run = self.folder / "run"
        longest = max(len(member.name) for member in self.file.members) + len(".sock")
        with os_failures(self.folder):
            if run.is_symlink() and not Path(os.readlink(run)).parent.is_dir():
                run.unlink()  # that runtime folder ended with somebody's login
            if not run.is_symlink():
                if len(os.fsencode(run)) + 1 + longest <= SOCKET_PATH_MAX_BYTES:
                    run.mkdir(mode=0o700, exist_ok=True)
                    return
                if run.exists():  # the folder was moved to a deeper place
                    shutil.rmtree(run)
                run.symlink_to(runtime_folder() / self.file.cluster[:16])
            target = Path(os.readlink(run))
            target.mkdir(mode=0o700, exist_ok=True)
            found = target.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.geteuid(), 0):
            raise Failure(
                Exit.FOREIGN, f"{target} is not ours, though {run} leads there: remove that link"
            )

    def _remove_short_folder(self) -> None:
        """When nothing runs any more, leave nothing outside of our own folder."""
        if self.socket_folder() != self.folder / "run":
            with suppress(OSError):
                self.socket_folder().rmdir()

    def _check_port(self, member: Member) -> None:
        """Failure(BUSY) when somebody else has the member's port."""
        if not member.port:
            return
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, member.port))
            except OSError as error:
                raise Failure(
                    Exit.BUSY,
                    f"port {member.port} of {member.name} cannot be used ({error.strerror}): end"
                    f" the program that has it, or change the port in {self.folder}/cluster.toml",
                ) from None

    def _config(self, member: Member) -> str:
        """The text of a member's ``config.toml``."""
        home = self.home(member)
        values: dict[str, object] = {
            "cluster": self.file.cluster,
            "server": member.server,
            "host": os.uname().nodename,
            "data": str(home / "data"),
            "listen": self.addresses(member),
            "log_level": self.file.log_level,
            "ready_file": str(home / "ready"),
        }
        if member.role == METASERVER:
            values["replicas"] = self.file.replicas
            values["root_uid"], values["root_gid"] = os.geteuid(), os.getegid()
        else:
            values["metaservers"] = self.metaserver_addresses()
        first = "# Written at each start from ../cluster.toml: change that one."
        return "\n".join([first, *toml_lines(values)]) + "\n"


def open_cluster(folder: Path) -> Cluster:
    """The cluster that lives in a folder; Failure(FOREIGN) when none does."""
    folder = resolved(folder)
    if not is_cluster(folder):
        check_vacant(folder)
        raise Failure(
            Exit.FOREIGN,
            f"there is no cluster in {folder}; `tidefs mount {folder} MOUNTPOINT` or"
            f" `tidefs up {folder}` make one",
        )
    return Cluster(folder, read(folder))


def make_folder(folder: Path) -> Path:
    """The folder for a cluster that is there or is to be made, absolute.

    Failure(FOREIGN) when other things are in it.
    """
    folder = resolved(folder)
    if not is_cluster(folder):
        check_vacant(folder)
        with os_failures(folder):
            folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def open_or_create(folder: Path, shape: Shape) -> tuple[Cluster, bool]:
    """The cluster in a locked folder, made when there is none; whether it was made."""
    if is_cluster(folder):
        return Cluster(folder, read(folder)), False
    check_vacant(folder)
    return Cluster(folder, create(folder, shape, free_port)), True


def resolved(folder: Path) -> Path:
    """Absolute and without links; Failure when a part of it cannot be read or written down."""
    with os_failures(folder):
        found = folder.resolve()
    try:
        str(found).encode()
    except UnicodeEncodeError:
        raise Failure(
            Exit.FOREIGN, f"{found!r}: the name is not UTF-8 text; choose another folder"
        ) from None
    return found


def free_port() -> int:
    """A TCP port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port
