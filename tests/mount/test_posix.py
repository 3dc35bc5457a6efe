"""POSIX on real mounts of real clusters, by each driver: permissions, attributes, names, times.

What pyfuse3 cannot serve is left out by name (see ``drivers``), nothing else.
"""

import contextlib
import os
import socket
import stat
import subprocess
import threading
from pathlib import Path

import pytest
from tidefs.client.options import DriverName
from tidefs.tests.conftest import LiveCluster, Stage
from tidefs.tests.mount.drivers import needs, needs_fuse
from tidefs.tests.mount.posix import (
    ACCESS,
    DEFAULT,
    a_list,
    as_user,
    failed,
    getxattr,
    link_open_file,
    listxattr,
    mode_of,
    rename,
    write,
)

pytestmark = [pytest.mark.mount, needs_fuse]

ANNE, BERT = 1001, 1002
TEAM = 3000


@pytest.fixture(scope="module")
def mounts(tmp_path_factory, _clean_machine):
    """One cluster, mounted by each driver when it is wanted: here as by default, and there by
    somebody who looks each time. Paths are relative: other users may not come from above."""
    folder = tmp_path_factory.mktemp("posix")
    folder.chmod(0o755)
    stage = Stage(folder)
    cluster = LiveCluster(folder / "cluster")
    cluster.up("--chunkservers", 1, "--replicas", 1)
    made: dict[DriverName, tuple[Path, Path]] = {}

    def get(driver):
        if driver not in made:
            for name, mode in (("here", "nfs"), ("there", "uncached")):
                options = f"driver={driver},suid,dev,mode={mode}"
                cluster.mount(f"{driver}-{name}", "-o", options)
            made[driver] = Path(f"{driver}-here"), Path(f"{driver}-there")
        return made[driver]

    with contextlib.chdir(folder):
        yield get
    stage.close()


@pytest.fixture
def pair(mounts, driver_name):
    """A new folder on two mounts, open to all; no umask."""
    here, there = mounts(driver_name)
    name = f"{driver_name}-{len(os.listdir(here))}"
    (here / name).mkdir()
    (here / name).chmod(0o777)
    before = os.umask(0)
    yield here / name, there / name
    os.umask(before)


@pytest.fixture
def here(pair):
    return pair[0]


def read(path):
    """A work for other users."""
    return lambda: path.read_bytes().decode()


# --- access lists ----------------------------------------------------------------------------


def test_an_access_list_lets_in_and_keeps_out(pair):
    here, there = (folder / "file" for folder in pair)
    write(here, b"x", 0o600)
    assert as_user(ANNE, ANNE, read(here)) == "EACCES"
    anne = a_list(USER_OBJ=6, USER=(4, ANNE), GROUP_OBJ=0, MASK=4, OTHER=0)
    os.setxattr(here, ACCESS, anne)
    assert mode_of(here) == 0o640
    for path in (here, there):
        assert as_user(ANNE, ANNE, read(path)) == "x"
        assert as_user(BERT, BERT, read(path)) == "EACCES"
        assert os.getxattr(path, ACCESS) == anne
    here.chmod(0o600)
    assert as_user(ANNE, ANNE, read(here)) == "EACCES", "the mask is empty now"
    os.setxattr(here, ACCESS, a_list(USER_OBJ=6, GROUP_OBJ=0, GROUP=(4, TEAM), MASK=4, OTHER=0))
    assert as_user(BERT, BERT, read(here)) == "EACCES"
    assert as_user(BERT, BERT, read(here), [TEAM]) == "x", "a supplementary group"
    os.removexattr(here, ACCESS)
    assert (mode_of(here), os.listxattr(here)) == (0o640, [])


def test_an_access_list_of_a_folder_opens_the_way(here):
    folder = here / "folder"
    folder.mkdir(0o700)
    write(folder / "file")
    assert as_user(ANNE, ANNE, read(folder / "file")) == "EACCES"
    os.setxattr(folder, ACCESS, a_list(USER_OBJ=7, USER=(1, ANNE), GROUP_OBJ=0, MASK=7, OTHER=0))
    assert as_user(ANNE, ANNE, read(folder / "file")) == "x"
    assert as_user(BERT, ANNE, read(folder / "file")) == "EACCES"


@needs("access lists")
def test_a_default_list_is_inherited_in_place_of_the_umask(here):
    folder = here / "folder"
    folder.mkdir()
    default = a_list(USER_OBJ=7, USER=(7, ANNE), GROUP_OBJ=5, MASK=7, OTHER=0)
    os.setxattr(folder, DEFAULT, default)
    os.umask(0o077)
    write(folder / "file")
    (folder / "below").mkdir()
    os.mkfifo(folder / "fifo", 0o666)
    (folder / "link").symlink_to("x")
    assert [mode_of(folder / name) for name in ("file", "below", "fifo")] == [0o660, 0o770, 0o660]
    assert os.listxattr(folder / "file") == [ACCESS]
    assert os.getxattr(folder / "below", DEFAULT) == default
    assert os.listxattr(folder / "link", follow_symlinks=False) == []
    assert as_user(ANNE, ANNE, read(folder / "file")) == "x"
    os.removexattr(folder, DEFAULT)
    write(folder / "later")
    assert mode_of(folder / "later") == 0o600


def test_what_can_have_no_list(here):
    write(here / "file")
    (here / "link").symlink_to("file")
    plain = a_list(USER_OBJ=6, GROUP_OBJ=4, OTHER=4)
    assert failed(os.setxattr, here / "file", DEFAULT, plain) == "EACCES"
    assert failed(os.setxattr, here / "file", ACCESS, plain[:-8]) == "EINVAL"
    link = here / "link"
    assert failed(os.setxattr, link, ACCESS, plain, follow_symlinks=False) == "ENOTSUP"
    assert as_user(ANNE, ANNE, lambda: failed(os.setxattr, link, ACCESS, plain)) == "EPERM"
    assert failed(os.removexattr, here / "file", ACCESS) == ""
    assert failed(os.getxattr, here / "file", ACCESS) == "ENODATA"


def test_setfacl_and_getfacl(here):
    write(here / "file", mode=0o640)
    subprocess.run(["setfacl", "-m", f"u:{ANNE}:rw,g:{TEAM}:r", here / "file"], check=True)
    said = subprocess.run(
        ["getfacl", "-cnE", here / "file"], check=True, capture_output=True, text=True
    ).stdout
    assert said.split() == [
        "user::rw-",
        f"user:{ANNE}:rw-",
        "group::r--",
        f"group:{TEAM}:r--",
        "mask::rw-",
        "other::---",
    ]
    subprocess.run(["setfacl", "-b", here / "file"], check=True)
    assert (mode_of(here / "file"), os.listxattr(here / "file")) == (0o640, [])


@needs("access lists")
def test_a_list_by_who_is_not_in_the_group(here):
    file = here / "file"
    write(file)
    os.chown(file, ANNE, TEAM)
    more = a_list(USER_OBJ=7, USER=(4, BERT), GROUP_OBJ=5, MASK=5, OTHER=4)
    for groups, mode in ([], 0o754), ([TEAM], 0o2754):
        file.chmod(0o2755)
        assert as_user(ANNE, ANNE, lambda: failed(os.setxattr, file, ACCESS, more), groups) == ""
        assert mode_of(file) == mode


# --- modes -----------------------------------------------------------------------------------


def test_the_umask(here):
    os.umask(0o027)
    write(here / "file")
    (here / "folder").mkdir()
    os.mkfifo(here / "fifo", 0o666)
    assert [mode_of(here / name) for name in ("file", "folder", "fifo")] == [0o640, 0o750, 0o640]


def append(path):
    with open(path, "ab", 0) as file:
        file.write(b"y")
        return os.fstat(file.fileno()).st_mode & 0o7777


def allocate(path):
    with open(path, "r+b", 0) as file:
        os.posix_fallocate(file.fileno(), 0, 100)


def copy(path):
    path.with_name("source").write_bytes(b"x")
    with open(path.with_name("source"), "rb", 0) as source, open(path, "r+b", 0) as target:
        os.copy_file_range(source.fileno(), target.fileno(), 1)


CHANGES = {
    "write": append,
    "allocate": allocate,
    "copy": copy,
    "truncate": lambda path: os.truncate(path, 1),
    "open, truncating": lambda path: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("size", [0, 5])
def test_who_changes_a_file_takes_its_privileges_away(here, change, size):
    file = here / f"file-{change}-{size}"
    write(file, bytes(size))
    os.chown(file, ANNE, ANNE)
    for mode, left in ((0o4777, 0o777), (0o6777, 0o777), (0o6767, 0o2767)):
        for user in (ANNE, BERT):
            file.chmod(mode)
            as_user(user, ANNE, lambda: CHANGES[change](file))
            assert mode_of(file) == left, (oct(mode), user)
        file.chmod(mode)
        CHANGES[change](file)
        assert mode_of(file) == mode, "root may keep them"


def test_a_change_of_owner_takes_them_away(here):
    file, folder = here / "file", here / "folder"
    write(file)
    folder.mkdir()
    for owner in ((ANNE, ANNE), (-1, TEAM), (BERT, -1), (-1, -1)):
        file.chmod(0o6775)
        os.setxattr(file, "security.capability", bytes.fromhex("0100000200200000") + bytes(12))
        os.chown(file, *owner)
        assert mode_of(file) == 0o775, owner
        assert os.listxattr(file) == []
        folder.chmod(0o6775)
        os.chown(folder, *owner)
        assert mode_of(folder) == 0o6775


def test_a_write_takes_capabilities_away(here):
    file = here / "file"
    write(file, mode=0o777)
    os.setxattr(file, "security.capability", bytes.fromhex("0100000200200000") + bytes(12))
    as_user(ANNE, ANNE, lambda: append(file))
    assert os.listxattr(file) == []


def test_a_set_group_id_folder(here):
    folder = here / "folder"
    folder.mkdir()
    os.chown(folder, 0, TEAM)
    folder.chmod(0o2777)

    def make():
        write(folder / "file", mode=0o2775)
        (folder / "below").mkdir()

    as_user(ANNE, ANNE, make)
    assert ((folder / "file").stat().st_gid, mode_of(folder / "file")) == (TEAM, 0o775)
    assert ((folder / "below").stat().st_gid, mode_of(folder / "below")) == (TEAM, 0o2777)
    os.chown(folder / "file", ANNE, TEAM)
    as_user(ANNE, ANNE, lambda: (folder / "file").chmod(0o2755))
    assert mode_of(folder / "file") == 0o755, "chmod by who is not in the group"


def test_a_sticky_folder(here):
    folder = here / "folder"
    folder.mkdir()
    folder.chmod(0o1777)
    as_user(ANNE, ANNE, lambda: write(folder / "file"))
    assert as_user(BERT, BERT, lambda: failed(os.unlink, folder / "file")) == "EPERM"
    assert as_user(BERT, BERT, lambda: failed(os.rename, folder / "file", here / "x")) == "EPERM"
    assert as_user(ANNE, ANNE, lambda: failed(os.unlink, folder / "file")) == ""


# --- files without a name --------------------------------------------------------------------


@needs("tmpfile")
@pytest.mark.parametrize("by_proc", [False, True])
def test_an_unnamed_file_gets_a_name(pair, by_proc):
    here, there = pair
    with open(os.open(here, os.O_TMPFILE | os.O_RDWR, 0o640), "w+b", 0) as file:
        file.write(b"content")
        assert os.fstat(file.fileno()).st_nlink == 0
        assert os.listdir(here) == os.listdir(there) == []
        name = f"name-{by_proc}"
        assert link_open_file(file.fileno(), here / name, by_proc=by_proc) == ""
        assert os.fstat(file.fileno()).st_nlink == 1
        file.write(b" and more")
    assert (there / name).read_bytes() == b"content and more"
    (here / name).unlink()


@needs("tmpfile")
def test_an_unnamed_file_that_may_not(here):
    descriptor = os.open(here, os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)
    assert link_open_file(descriptor, here / "name", by_proc=True) == "ENOENT"
    os.close(descriptor)


# --- names -----------------------------------------------------------------------------------


def test_any_byte_may_be_in_a_name(pair):
    here, there = map(os.fsencode, pair)
    usual = bytes(byte for byte in range(1, 256) if byte not in b"/")
    names = {usual[:127], usual[127:], b"n" * 255}
    for name in names:
        write(here + b"/" + name, name)
    assert set(os.listdir(there)) == names
    for name in names:
        with open(there + b"/" + name, "rb") as file:
            assert file.read() == name
    for call in (os.lstat, os.mkdir, os.unlink, write):
        assert failed(call, here + b"/" + b"n" * 256) == "ENAMETOOLONG"


def test_a_path_of_4095_bytes(here):
    with contextlib.chdir(here):
        folder = os.open(".", os.O_RDONLY)
        below = ""
        for _ in range(15):
            os.mkdir("d" * 250)
            os.chdir("d" * 250)
            below += "d" * 250 + "/"
        os.fchdir(folder)
        os.close(folder)
        path = below + "./" * 100
        path += "f" * (4095 - len(path))
        write(path, b"deep")
        with open(path, "rb") as file:
            assert file.read() == b"deep"
        assert failed(os.stat, path + "f") == "ENAMETOOLONG"


def test_targets_of_links(pair):
    here, there = pair
    (here / "long").symlink_to("t" * 4095)
    assert os.readlink(there / "long") == "t" * 4095
    assert failed(os.symlink, "t" * 4096, here / "longer") == "ENAMETOOLONG"
    assert failed(os.symlink, "", here / "empty") == "ENOENT"
    (here / "one").symlink_to("two")
    (here / "two").symlink_to("one")
    assert failed(os.stat, here / "one") == "ELOOP"
    write(here / "0")
    for at in range(1, 42):
        (here / f"{at}").symlink_to(f"{at - 1}")
    assert (here / "40").read_bytes() == b"x"
    assert failed(os.stat, here / "41") == "ELOOP"


def test_rename_flags(pair):
    here, there = pair
    noreplace, exchange, whiteout = 1, 2, 4
    write(here / "a", b"a")
    write(here / "b", b"b")
    assert rename(here / "a", here / "b", noreplace) == "EEXIST"
    assert rename(here / "a", here / "b", exchange) == ""
    assert (there / "a").read_bytes() == b"b"
    assert rename(here / "a", here / "none", exchange) == "ENOENT"
    assert rename(here / "a", here / "c", whiteout) == ""
    for folder in pair:
        left = os.lstat(folder / "a")
        assert (stat.S_ISCHR(left.st_mode), left.st_rdev) == (True, 0)
        assert (folder / "c").read_bytes() == b"b"
    assert rename(here / "b", here / "d", exchange | whiteout) == "EINVAL"


def test_special_files(pair):
    here, there = pair
    devices = {"c": (stat.S_IFCHR, os.makedev(1, 5)), "b": (stat.S_IFBLK, os.makedev(259, 70_000))}
    for name, (kind, device) in devices.items():
        os.mknod(here / name, kind | 0o600, device)
        found = os.stat(there / name)
        assert (stat.S_IFMT(found.st_mode), found.st_rdev) == (kind, device)
    with open(here / "c", "rb") as zero:
        assert zero.read(3) == bytes(3)
    os.mkfifo(here / "fifo")
    writer = threading.Thread(target=lambda: (here / "fifo").write_bytes(b"through"))
    writer.start()
    assert (here / "fifo").read_bytes() == b"through"
    writer.join()
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(here / "socket"))
        server.listen()
        client.connect(str(here / "socket"))
    assert stat.S_ISSOCK(os.stat(there / "socket").st_mode)


# --- extended attributes ---------------------------------------------------------------------


def test_which_attributes_there_may_be(here):
    write(here / "file")
    (here / "folder").mkdir()
    (here / "link").symlink_to("file")
    os.mkfifo(here / "fifo")

    def put(path, name, value=b"1", flags=0):
        return failed(os.setxattr, here / path, name, value, flags, follow_symlinks=False)

    for path in ("file", "folder", "link", "fifo"):
        has_user = path in ("file", "folder")
        assert put(path, "user.a") == ("" if has_user else "EPERM")
        assert put(path, "trusted.a") == put(path, "security.a") == ""
        assert put(path, "system.a") == put(path, "other.a") == put(path, "user") == "ENOTSUP"
    assert put("file", "user.") == "EINVAL"
    assert put("file", "user." + "n" * 250) == ""
    assert put("file", "user." + "n" * 251) == "ERANGE"
    assert put("file", "user.big", bytes(65_537)) == "E2BIG"
    assert put("folder", "user.big", bytes(65_536)) == "ENOSPC", "with what it has already"
    assert put("file", "user.a", flags=os.XATTR_CREATE) == "EEXIST"
    assert put("file", "user.b", flags=os.XATTR_REPLACE) == "ENODATA"
    assert failed(os.getxattr, here / "file", "user.b") == "ENODATA"
    assert failed(os.removexattr, here / "file", "user.b") == "ENODATA"


def test_the_largest_attribute(pair):
    here, there = (folder / "file" for folder in pair)
    write(here)
    os.setxattr(here, "user.big", b"b" * 65_536)
    assert os.getxattr(there, "user.big") == b"b" * 65_536
    assert getxattr(there, "user.big", 65_535) == "ERANGE"
    assert getxattr(there, "user.big", 0) == 65_536
    os.removexattr(there, "user.big")
    for at in range(200):
        os.setxattr(here, f"user.{at:0250}", b"")
    assert listxattr(there, 0) == 200 * 256
    assert listxattr(there, 200 * 256 - 1) == "ERANGE"
    assert len(os.listxattr(there)) == 200


def test_trusted_attributes_are_roots(here):
    file = here / "file"
    write(file)
    os.setxattr(file, "trusted.a", b"1")
    os.setxattr(file, "user.a", b"1")
    assert as_user(ANNE, ANNE, lambda: os.listxattr(file)) == ["user.a"]
    assert as_user(ANNE, ANNE, lambda: failed(os.getxattr, file, "trusted.a")) == "ENODATA"
    assert as_user(ANNE, ANNE, lambda: failed(os.setxattr, file, "trusted.b", b"")) == "EPERM"


# --- times -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "time_ns", [0, 1, -1, 999_999_999, -(10**18), (1 << 31) * 10**9 + 5, (1 << 33) * 10**9 + 7]
)
def test_times_are_kept_to_the_nanosecond(pair, time_ns):
    here, there = (folder / f"file{time_ns}" for folder in pair)
    write(here)
    os.utime(here, ns=(time_ns + 1, time_ns))
    for path in (here, there):
        assert (os.stat(path).st_atime_ns, os.stat(path).st_mtime_ns) == (time_ns + 1, time_ns)


def test_times_beyond_the_range(here):
    write(here / "file")
    os.utime(here / "file", ns=(10**11 * 10**9, -(10**11) * 10**9))
    found = os.stat(here / "file")
    assert (found.st_atime_ns, found.st_mtime_ns) == ((1 << 63) - 1, -(1 << 63))


def test_reading_changes_atime_where_that_tells_something(pair):
    here, there = (folder / "file" for folder in pair)
    write(here, b"first")
    made = os.stat(here)
    assert there.read_bytes() == b"first"
    seen = os.stat(there)
    assert seen.st_atime_ns > max(made.st_mtime_ns, made.st_ctime_ns)
    assert seen.st_ctime_ns == made.st_ctime_ns
    there.read_bytes()
    assert os.stat(there).st_atime_ns == seen.st_atime_ns
    write(here, b"second")
    assert there.read_bytes() == b"second"
    assert os.stat(there).st_atime_ns > os.stat(there).st_mtime_ns
    os.listdir(pair[1])
    assert os.stat(pair[1]).st_atime_ns > os.stat(pair[1]).st_mtime_ns


# --- what is gone, what is left --------------------------------------------------------------


def test_an_open_file_outlives_its_name_on_both_mounts(pair):
    here, there = (folder / "file" for folder in pair)
    write(here, b"content")
    with open(here, "r+b", 0) as first, open(there, "r+b", 0) as second:
        os.unlink(there)
        first.write(b"CON")
        os.fsync(first.fileno())
        assert os.pread(second.fileno(), 10, 3) == b"tent"
        os.fchmod(first.fileno(), 0o600)
        os.ftruncate(first.fileno(), 2)
        assert os.fstat(first.fileno()).st_size == 2
        assert os.fstat(first.fileno()).st_nlink == 0
        assert link_open_file(first.fileno(), pair[0] / "back", by_proc=True) == "ENOENT"
    assert failed(os.stat, there) == "ENOENT"


def test_who_works_in_a_folder_that_is_gone(pair):
    here, there = (folder / "folder" for folder in pair)
    here.mkdir()
    descriptor = os.open(here, os.O_RDONLY)
    there.rmdir()
    try:
        assert failed(os.mkdir, "x", dir_fd=descriptor) in ("ENOENT", "ESTALE")
        assert failed(os.listdir, descriptor) in ("", "ENOENT", "ESTALE")
    finally:
        os.close(descriptor)


def test_df(here):
    space = os.statvfs(here)
    assert 0 < space.f_bavail <= space.f_bfree <= space.f_blocks
    assert 0 < space.f_favail <= space.f_ffree < space.f_files
    assert (space.f_namemax, space.f_bsize, space.f_frsize) == (255, 4096, 4096)
    for option in ("-h", "-i"):
        said = subprocess.run(["df", option, here], check=True, capture_output=True, text=True)
        assert "%" in said.stdout.splitlines()[1]


# --- large directories -----------------------------------------------------------------------


def test_a_listing_while_the_directory_changes(pair):
    here, there = pair
    names = {f"stays-{at}" for at in range(600)} | {f"goes-{at}" for at in range(600)}
    for name in names:
        os.close(os.open(here / name, os.O_CREAT))
    seen = []
    with os.scandir(there) as entries:
        for entry in entries:
            seen.append(entry.name)
            if len(seen) % 3 == 0:
                (here / f"comes-{len(seen)}").touch()
            going = here / f"goes-{len(seen)}"
            if going.exists():
                going.unlink()
    assert len(seen) == len(set(seen)), "none twice"
    assert {name for name in seen if name.startswith("stays")} == {
        name for name in names if name.startswith("stays")
    }


def test_removing_while_listing(here):
    for at in range(1100):
        os.close(os.open(here / f"{at}", os.O_CREAT))
    with os.scandir(here) as entries:
        for entry in entries:
            os.unlink(entry.path)
    assert os.listdir(here) == []
