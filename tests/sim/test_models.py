"""The models themselves: what a file's bytes may be after accidents, what a tree answers."""

from tidefs.fs.attributes import Kind
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages.meta import RenameFlags
from tidefs.tests.sim.file_model import FileModel, Pages
from tidefs.tests.sim.model import Node, Tree


def file_with(*writes: tuple[int, bytes]) -> FileModel:
    file = FileModel()
    for offset, data in writes:
        file.write(offset, data)
    return file


def test_pages_are_sparse_bytes():
    pages = Pages()
    pages.write(4090, b"0123456789")
    assert pages.read(4088, 14) == b"\0\x000123456789\0\0"
    pages.cut(4098)
    assert pages.read(4088, 14) == b"\0\x0001234567" + bytes(4)
    pages.cut(0)
    assert pages.read(0, 10_000) == bytes(10_000)


def test_the_last_write_wins_and_the_gap_is_zeros():
    file = file_with((0, b"aaaa"), (2, b"bb"), (6, b"c"))
    assert file.see_bytes(0, 100, b"aabb\0\0c") is None
    assert file.see_bytes(5, 1, b"\0") is None
    assert "byte 3" in (file.see_bytes(0, 100, b"aaba\0\0c") or "")
    assert "expected 7" in (file.see_bytes(0, 100, b"aabb") or "")


def test_what_was_synced_has_one_value_whatever_happens():
    file = file_with((0, b"old!"))
    file.synced()
    assert file.all_synced()
    file.servers_lost_power(held_open=False)
    file.client_died()
    assert file.see_size(4) is None
    assert file.see_bytes(0, 4, b"old!") is None
    assert file.see_bytes(0, 4, b"\0ld!") is not None


def test_published_bytes_survive_the_client_but_not_a_power_failure():
    file = file_with((0, b"old!"))
    file.synced()
    file.write(1, b"NEW")
    file.published()
    file.let_go()
    file.client_died()
    assert file.see_size(4) is None
    assert file.see_bytes(0, 4, b"old!") is not None
    file.servers_lost_power(held_open=False)
    for seen in (b"oNEW", b"old!", b"oNd\0"):
        assert file.see_bytes(0, 4, seen) is None, seen
    assert file.see_bytes(0, 4, b"oXEW") is not None
    assert file.see_bytes(0, 4, b"\0NEW") is not None


def test_an_fsync_after_a_power_failure_makes_open_bytes_certain():
    file = file_with((0, b"data"))
    file.servers_lost_power(held_open=True)
    assert file.see_bytes(0, 4, b"d\0ta") is None
    file.synced()
    assert file.see_bytes(0, 4, b"d\0ta") is not None
    file.write(0, b"more")
    file.published()
    file.servers_lost_power(held_open=False)
    file.synced()
    assert file.see_bytes(0, 4, b"da\0e") is None, "nobody held it: an fsync cannot bring it back"
    file.write(0, b"over")
    file.synced()
    assert file.all_synced()
    assert file.see_bytes(0, 4, b"dave") is not None


def test_a_dead_client_leaves_each_dirty_byte_old_or_new_and_one_of_the_sizes():
    file = file_with((0, b"old!"))
    file.synced()
    file.write(2, b"1234")
    file.write(4, b"XXXX")
    file.client_died()
    assert "allowed is [(4, 4), (4, 6), (5, 8)]" in (file.see_size(9) or "")
    assert file.see_size(3) is not None
    assert file.see_size(6) is None
    assert file.see_bytes(0, 6, b"ol1!3X") is None
    assert file.see_bytes(0, 6, b"ol1\x003X") is not None
    assert "size is 4" in (file.see_size(4) or "")


def test_a_cut_is_certain_and_what_was_behind_never_comes_back():
    file = file_with((0, b"aaaaaaaa"))
    file.cut(3)
    file.write(6, b"b")
    assert file.see_bytes(0, 9, b"aaa\0\0\0b") is None
    file.client_died()
    assert file.see_size(3) is None
    assert file.see_bytes(0, 3, b"aaa") is None


def test_a_failed_fsync_leaves_everything_unsynced_open():
    file = file_with((0, b"data"))
    file.failed()
    assert not file.certain()
    assert file.see_size(0) is None


class refused:  # noqa: N801 - reads like pytest.raises
    """The block must fail with this code."""

    def __init__(self, code: Code) -> None:
        self.code = code

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, trace) -> bool:
        assert isinstance(error, TideError), f"expected {self.code.name}"
        assert error.code is self.code, error
        return True


def test_a_tree_answers_as_posix_does():
    tree = Tree()
    tree.make((b"d",), Node(Kind.DIRECTORY, 0o755))
    file = tree.make((b"d", b"f"), Node(Kind.FILE, 0o644))
    tree.link((b"d", b"f"), (b"g",))
    assert file.links == 2
    with refused(Code.EXISTS):
        tree.make((b"g",), Node(Kind.FILE, 0o644))
    with refused(Code.NOT_A_DIRECTORY):
        tree.find((b"g", b"x"))
    with refused(Code.NO_ENTRY):
        tree.unlink((b"h",))
    with refused(Code.IS_A_DIRECTORY):
        tree.unlink((b"d",))
    with refused(Code.NOT_EMPTY):
        tree.rmdir((b"d",))
    with refused(Code.NOT_PERMITTED):
        tree.link((b"d",), (b"e",))
    with refused(Code.INVALID):
        tree.rename((b"d",), (b"d", b"x"), 0)
    with refused(Code.NOT_EMPTY):
        tree.rename((b"d", b"f"), (b"d",), 0)
    with refused(Code.EXISTS):
        tree.rename((b"d",), (b"g",), RenameFlags.NOREPLACE)
    with refused(Code.NOT_A_DIRECTORY):
        tree.rename((b"d",), (b"g",), 0)
    tree.rename((b"d", b"f"), (b"g",), 0)
    assert sorted(tree.root.names) == [b"d", b"g"], "both names were of one file: nothing moved"
    tree.rename((b"d",), (b"g",), RenameFlags.EXCHANGE)
    assert tree.find((b"d",)) is file
    tree.unlink((b"g", b"f"))
    tree.rmdir((b"g",))
    assert [path for path, _ in tree.paths()] == [(b"d",)]
    assert file.links == 1
    assert tree.root.expected_links() == 2


def test_after_a_failed_fsync_the_client_may_still_show_its_own_size():
    for size in (4, 12, 14, 21):
        file = file_with((0, b"data"))
        file.published()
        file.write(10, b"more")
        file.failed()
        file.write(20, b"x")
        assert file.see_size(size) is None
        assert file.size == size


def test_a_short_read_shows_which_of_the_possible_sizes_it_is():
    file = file_with((0, b"abcdef"))
    file.failed()
    assert file.see_bytes(9, 5, b"") is None
    assert file.see_bytes(0, 2, b"ab") is None
    assert file.see_bytes(0, 9, b"abcd") is None
    assert file.size == 4


def test_after_a_failure_only_another_client_shows_what_the_servers_have():
    file = file_with((0, b"abcdef"))
    file.failed()
    assert file.see_size(6) is None
    file.failed()
    file.client_died()
    assert file.see_size(0) is None
    assert file.see_size(6) is not None
