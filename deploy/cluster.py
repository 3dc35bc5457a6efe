"""A cluster of server processes on this machine, kept in a folder: start it, stop it, find it."""

import os
import shutil
import socket
import stat
from collections.abc import Collection
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ..client.notes import runtime_folder
from ..fs.messages.hello import METASERVER
from ..fs.messages.places import ServerPlace
from . import homes
from .cluster_file import ClusterFile, Member, Shape, compose, read, toml_lines, write
from .exits import Exit, Failure
from .folder import Say, check_vacant, is_cluster, os_failures, write_safely
from .processes import Spawned, end, is_ours, pid_of_server, spawn_server, wait_ready

LOOPBACK = "127.0.0.1"
SOCKET_PATH_MAX_BYTES = 100
"""A little less than what fits into a sockaddr_un (unix(7): 108 with the final zero)."""


class Started(NamedTuple):
    """What a start did: names of those that it started, and why others do not run."""

    names: list[str]
    troubles: dict[str, Failure]


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

    def addresses(self, member: Member) -> list[str]:
        """How to reach a member, the best way first."""
        found = [f"unix:{self.socket_folder() / (member.name + '.sock')}"]
        if member.port:
            found.append(f"tcp:{LOOPBACK}:{member.port}")
        return found

    def metaserver_addresses(self) -> list[str]:
        """How to reach the metaservers."""
        return [
            address for member in self.file.of(METASERVER) for address in self.addresses(member)
        ]

    def place(self, member: Member) -> ServerPlace:
        """Where a member is, for the others."""
        return ServerPlace(member.server, os.uname().nodename, self.addresses(member))

    def running(self) -> dict[str, int]:
        """Process ids of the members that run, by name."""
        pids = {one.name: pid_of_server(one.role, self.home(one)) for one in self.file.members}
        return {name: pid for name, pid in pids.items() if pid is not None}

    def create(self) -> None:
        """Make it in its folder: a cluster from the moment that ``cluster.toml`` is there.

        Call it locked, as all that changes something.
        """
        homes.clear_made(self.folder, [])
        founders = self.file.of(METASERVER)
        servers = [member.server for member in founders]
        places = [self.place(member) for member in founders]
        homes.make(self.folder, self.file.cluster, servers, places)
        write(self.folder, self.file)
        homes.put_in_place(self.folder, founders)

    def start(self, say: Say, only: Collection[str] | None = None) -> Started:
        """Start the members that do not run, or ``only`` these, and wait until they are ready.

        A metaserver without which the others are a majority is only told about in the answer;
        any other that does not start is a Failure.
        """
        homes.put_in_place(self.folder, self.file.of(METASERVER))
        running = self.running()
        missing = [
            member
            for member in self.file.members
            if member.name not in running and (only is None or member.name in only)
        ]
        troubles = self._obstacles(missing)
        names = [member.name for member in self.file.members if member.name not in troubles]
        self._check_majority(troubles, names)
        missing = [member for member in missing if member.name not in troubles]
        self._make_socket_folder()
        starting: list[Spawned] = []
        for member in missing:
            home = self.home(member)
            with os_failures(home):
                home.mkdir(mode=0o700, exist_ok=True)
            write_safely(home / "config.toml", self._config(member))
            starting.append(spawn_server(member.role, member.name, home))
        troubles |= wait_ready(starting, say)
        names = [member.name for member in missing if member.name not in troubles]
        self._check_majority(troubles, [*running, *names])
        return Started(names, troubles)

    def _obstacles(self, missing: list[Member]) -> dict[str, Failure]:
        """By name, why it is of no use to start them."""
        found = {}
        for member in missing:
            if member.role == METASERVER and homes.is_lost(self.home(member)):
                found[member.name] = Failure(Exit.FOREIGN, self.loss_of(member))
            elif trouble := self._port_in_use(member):
                found[member.name] = trouble
        return found

    def loss_of(self, member: Member) -> str:
        """What is to be done about a metaserver whose data folder is gone."""
        lost = (
            f"{member.name} cannot be started: {self.home(member)}/data is not a metaserver's data"
            " folder (any more). As its disk is lost or empty, it may not come back as who it was:"
        )
        if len(self.file.of(METASERVER)) > 1:
            return f"{lost} `tidefs cluster replace {self.folder} {member.name}`"
        return f"{lost} put the folder back from a copy; no other metaserver has the names"

    def unfinished(self, member: Member) -> str:
        """How a metaserver becomes a member that was about to when a command was interrupted."""
        command = f"add {self.folder}"
        if member.replaces:
            command = f"replace {self.folder} {member.name}"
        return (
            f"{member.name} is not known to have joined the group: `tidefs cluster {command}`"
            " finishes what was begun"
        )

    def _check_majority(self, troubles: dict[str, Failure], up: list[str]) -> None:
        """Raise the first of the troubles, unless the cluster works without these."""
        settled = self.file.settled()
        majority = sum(member.name in up for member in settled) > len(settled) // 2
        metaservers = [member.name for member in self.file.of(METASERVER)]
        for name, trouble in troubles.items():
            if name not in metaservers or not majority:
                raise trouble

    def stop(
        self, say: Say, *, kill: bool = False, only: Collection[str] | None = None
    ) -> list[str]:
        """Stop the members that run, or ``only`` these, and wait for their end; their names."""
        running = {
            name: pid for name, pid in self.running().items() if only is None or name in only
        }
        roles = {member.name: member.role for member in self.file.members}
        end(
            running,
            say,
            kill=kill,
            still_ours=lambda name, pid: is_ours(pid, roles[name], self.home_of(name)),
        )
        for name in running:
            (self.home_of(name) / "pid").unlink(missing_ok=True)
        if only is None:
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

    def _port_in_use(self, member: Member) -> Failure | None:
        """That somebody else has the member's port."""
        if not member.port:
            return None
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, member.port))
            except OSError as error:
                return Failure(
                    Exit.BUSY,
                    f"port {member.port} of {member.name} cannot be used ({error.strerror}): end"
                    f" the program that has it, or change the port in {self.folder}/cluster.toml",
                )
        return None

    def _config(self, member: Member) -> str:
        """The text of a member's ``config.toml``."""
        home = self.home(member)
        values: dict[str, Any] = {
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
            values |= self.file.metaserver
        else:
            values["metaservers"] = self.metaserver_addresses()
            values |= self.file.chunkserver
        lines = ["# Written at each start from ../cluster.toml: change that one."]
        lines += toml_lines(values)
        if member.role == METASERVER:
            for one in self.file.of(METASERVER):
                lines += ["", "[[members]]", *toml_lines(msgspec.structs.asdict(self.place(one)))]
        return "\n".join(lines) + "\n"


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
    cluster = Cluster(folder, compose(shape, free_ports))
    cluster.create()
    return cluster, True


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


def free_ports(count: int) -> list[int]:
    """TCP ports of this machine that nobody uses now, all different."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in probes]
