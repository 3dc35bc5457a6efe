"""Access lists: their format, and how they and modes follow each other (acl(5))."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidefs.fs import acl
from tidefs.fs.acl import AclEntry, Tag
from tidefs.fs.errors import Code, TideError


def a_list(*entries):
    """From (tag, permissions[, id])."""
    return tuple(AclEntry(Tag(tag), *rest) for tag, *rest in entries)


OWNER, USER, GROUP, NAMED, MASK, OTHER = Tag
MINIMAL = a_list((OWNER, 6), (GROUP, 4), (OTHER, 4))
FULL = a_list((OWNER, 7), (USER, 5, 10), (GROUP, 5), (NAMED, 7, 20), (MASK, 6), (OTHER, 1))


def packed(*entries, version=2):
    body = b"".join(struct.pack("<HHI", *entry) for entry in entries)
    return struct.pack("<I", version) + body


NONE = 0xFFFFFFFF
BASE = ((1, 6, NONE), (4, 4, NONE), (32, 4, NONE))


def test_the_format_is_the_kernels():
    assert acl.encode(MINIMAL) == packed(*BASE)
    assert acl.encode(MINIMAL) == bytes.fromhex(
        "02000000 01000600ffffffff 04000400ffffffff 20000400ffffffff"
    )


@pytest.mark.parametrize("value", [MINIMAL, FULL, ()])
def test_what_was_encoded_is_decoded(value):
    assert acl.decode(acl.encode(value)) == value
    assert acl.decode(memoryview(acl.encode(value))) == value


def test_an_id_that_means_nothing_is_not_looked_at():
    assert acl.decode(packed((1, 6, 0), (4, 4, 5), (32, 4, 0))) == MINIMAL


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (b"", "whole number"),
        (b"\2\0\0", "whole number"),
        (packed(*BASE) + b"x", "whole number"),
        (packed(*BASE, version=1), "version is 1"),
        (packed((1, 6, NONE), (3, 4, NONE), (32, 4, NONE)), "tag 0x3"),
        (packed((1, 8, NONE), *BASE[1:]), "more than rwx"),
        (packed(*BASE[:2]), "0 entries OTHER"),
        (packed(*BASE[1:]), "0 entries USER_OBJ"),
        (packed(BASE[0], BASE[2]), "0 entries GROUP_OBJ"),
        (packed(BASE[0], *BASE), "2 entries USER_OBJ"),
        (packed(BASE[1], BASE[0], BASE[2]), "not in order"),
        (packed(BASE[0], (2, 4, 9), *BASE[1:]), "not one mask"),
        (packed(*BASE[:2], (16, 4, NONE), (16, 4, NONE), BASE[2]), "not one mask"),
        (packed(BASE[0], (2, 4, NONE), BASE[1], (16, 4, NONE), BASE[2]), "no id"),
        (packed(BASE[0], (2, 4, 9), (2, 6, 9), BASE[1], (16, 4, 0), BASE[2]), "named twice"),
    ],
)
def test_what_is_no_list(value, word):
    with pytest.raises(TideError) as caught:
        acl.decode(value)
    assert caught.value.code is Code.INVALID
    assert word in caught.value.detail


def test_a_user_and_a_group_may_have_one_number():
    value = packed(BASE[0], (2, 4, 9), BASE[1], (8, 4, 9), (16, 4, NONE), BASE[2])
    assert [entry.id for entry in acl.decode(value) if entry.id != NONE] == [9, 9]


def test_the_mode_that_a_list_stands_for():
    assert acl.mode_bits(MINIMAL) == 0o644
    assert acl.mode_bits(FULL) == 0o761, "the group's bits are the mask"
    assert acl.is_minimal(MINIMAL)
    assert not acl.is_minimal(FULL)
    assert not acl.is_minimal(a_list((OWNER, 6), (GROUP, 4), (MASK, 4), (OTHER, 4)))


def test_chmod_changes_the_mask_where_there_is_one():
    assert acl.with_mode(MINIMAL, 0o4751) == a_list((OWNER, 7), (GROUP, 5), (OTHER, 1))
    assert acl.with_mode(FULL, 0o640) == a_list(
        (OWNER, 6), (USER, 5, 10), (GROUP, 5), (NAMED, 7, 20), (MASK, 4), (OTHER, 0)
    )


def test_without_a_default_list_the_umask_counts():
    assert acl.born(0o2777, 0o027, None, is_directory=True) == (0o2750, None, None)
    assert acl.born(0o4666, 0o7777, None, is_directory=False).mode == 0o4000, "only permissions"
    assert acl.born(0o666, 0o022, (), is_directory=False).mode == 0o644, "an empty list is none"


def test_with_a_default_list_the_umask_does_not_count():
    born = acl.born(0o666, 0o077, FULL, is_directory=False)
    assert born.mode == 0o660
    assert born.default is None
    assert born.access == a_list(
        (OWNER, 6), (USER, 5, 10), (GROUP, 5), (NAMED, 7, 20), (MASK, 6), (OTHER, 0)
    )


def test_a_directory_hands_the_default_list_on():
    born = acl.born(0o1777, 0o077, FULL, is_directory=True)
    assert (born.mode, born.access, born.default) == (0o1761, FULL, FULL)


def test_a_minimal_default_list_leaves_nothing_but_a_mode():
    born = acl.born(0o666, 0, a_list((OWNER, 7), (GROUP, 4), (OTHER, 0)), is_directory=False)
    assert born == (0o640, None, None)


def test_privileges():
    assert acl.without_privileges(0o6777) == 0o777
    assert acl.without_privileges(0o6767) == 0o2767, "no group execute: mandatory locking"
    assert acl.without_privileges(0o1755) == 0o1755


named = st.lists(
    st.tuples(st.sampled_from([USER, NAMED]), st.integers(0, 7), st.integers(0, 5)),
    unique_by=lambda entry: (entry[0], entry[2]),
    max_size=4,
)
bits = st.integers(0, 7)


@st.composite
def lists(draw):
    entries = [(OWNER, draw(bits)), (GROUP, draw(bits)), (OTHER, draw(bits)), *draw(named)]
    if len(entries) > 3 or draw(st.booleans()):
        entries.append((MASK, draw(bits)))
    return a_list(*sorted(entries, key=lambda entry: entry[0]))


@given(lists(), st.integers(0, 0o7777), st.integers(0, 0o777), st.booleans())
def test_list_and_mode_agree(value, mode, umask, is_directory):
    assert acl.decode(acl.encode(value)) == value
    assert acl.mode_bits(acl.with_mode(value, mode)) == mode & 0o777
    born = acl.born(mode, umask, value, is_directory=is_directory)
    assert born.mode & 0o777 == mode & acl.mode_bits(value), "never more than either allows"
    assert born.mode & ~0o777 == mode & ~0o777
    if born.access is not None:
        assert acl.mode_bits(born.access) == born.mode & 0o777
        assert acl.decode(acl.encode(born.access)) == born.access
