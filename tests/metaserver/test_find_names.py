"""What inodes are called: looked for among all names, a piece at a time."""

import pytest
from tidefs.fs.errors import Code, TideError
from tidefs.fs.messages.meta import Link
from tidefs.fs.messages.names import FindNames, FoundName


def search(cluster, inodes, count_max, directory=0, name=b""):
    """All pieces; and how many there were."""
    found, pieces = [], 0
    while True:
        piece = cluster.state.find_names(FindNames(inodes, directory, name, count_max))
        found += piece.found
        pieces += 1
        if piece.end:
            return found, pieces
        directory, name = piece.directory, piece.name


@pytest.mark.parametrize(("count_max", "pieces"), [(1, 5), (2, 3), (5, 1), (1_000, 1)])
def test_every_name_is_found_in_pieces_of_any_size(cluster, count_max, pieces):
    one = cluster.file(b"one")
    folder = cluster.directory(b"folder")
    two = cluster.file(b"two", folder)
    cluster.do(Link(one, folder, b"again"))
    cluster.file(b"zero")
    found, asked = search(cluster, [one, two, 999], count_max)
    assert found == [
        FoundName(one, 1, b"one"),
        FoundName(one, folder, b"again"),
        FoundName(two, folder, b"two"),
    ]
    assert asked == pieces


def test_a_search_begins_where_it_is_told(cluster):
    folder = cluster.directory(b"folder")
    inner = cluster.directory(b"inner", folder)
    cluster.file(b"a", inner)
    assert search(cluster, [inner], 1, folder)[0] == [FoundName(inner, folder, b"inner")]
    assert search(cluster, [inner], 1, folder, b"inner")[0] == []
    assert search(cluster, [inner], 1, inner)[0] == []


def test_an_empty_file_system(cluster):
    assert search(cluster, [1], 10) == ([], 1)


def test_nonsense_is_refused(cluster):
    for directory, name in ((-1, b""), (1 << 64, b""), (1, b"x" * 256)):
        with pytest.raises(TideError) as failed:
            cluster.state.find_names(FindNames([1], directory, name, 1))
        assert failed.value.code is Code.INVALID
