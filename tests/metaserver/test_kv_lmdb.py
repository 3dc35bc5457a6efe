"""The LMDB store: the same as its twin in memory, and nothing lost when it cannot commit."""

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidefs.fs.errors import Code, TideError
from tidefs.metaserver import kv_lmdb
from tidefs.metaserver.kv_lmdb import LmdbKeyValue
from tidefs.metaserver.kv_memory import MemoryKeyValue

KEYS = st.binary(min_size=1, max_size=3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.binary(max_size=5)),
        st.tuples(st.just("delete"), KEYS, st.none()),
        st.tuples(st.just("scan"), st.binary(max_size=2), st.binary(max_size=3)),
        st.tuples(st.just("commit"), st.none(), st.none()),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_it_does_what_its_twin_does(tmp_path_factory, steps):
    kv = LmdbKeyValue(str(tmp_path_factory.mktemp("kv")))
    twin = MemoryKeyValue()
    try:
        for step, key, value in steps:
            if step == "put":
                kv.put(key, value)
                twin.put(key, value)
            elif step == "delete":
                assert kv.delete(key) == twin.delete(key)
            elif step == "scan":
                assert list(kv.scan(key, value)) == list(twin.scan(key, value))
            else:
                kv.commit()
        assert list(kv.scan(b"")) == list(twin.scan(b""))
        for key, value in twin.scan(b""):
            assert kv.get(key) == value
    finally:
        kv.close()


def test_what_was_committed_is_there_again(tmp_path):
    kv = LmdbKeyValue(str(tmp_path))
    kv.put(b"kept", b"1")
    kv.commit()
    kv.put(b"not committed", b"2")
    kv.close()
    again = LmdbKeyValue(str(tmp_path))
    assert list(again.scan(b"")) == [(b"kept", b"1")]
    again.close()


def test_an_abandoned_scan_is_in_nobody_s_way(tmp_path):
    kv = LmdbKeyValue(str(tmp_path))
    for number in range(10):
        kv.put(b"k%d" % number, b"")
    scan = kv.scan(b"k")
    next(scan)
    assert [key for key, _ in kv.scan(b"k", b"k8")] == [b"k9"]
    kv.put(b"k5", b"new")
    kv.commit()
    scan.close()
    kv.put(b"k6", b"new")
    kv.commit()
    kv.close()


def test_a_commit_that_fails_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(kv_lmdb, "MAP_BYTES", 128 * 1024)
    kv = LmdbKeyValue(str(tmp_path))
    kv.put(b"a", b"first")
    kv.commit()
    real = kv._transaction

    class Failing:
        def __getattr__(self, name):
            return getattr(real, name)

        def commit(self):
            raise lmdb.DiskError("mdb_txn_commit: No space left on device")

    kv.put(b"b", b"second")
    kv.delete(b"a")
    kv._transaction = Failing()
    with pytest.raises(TideError) as caught:
        kv.commit()
    assert caught.value.code is Code.NO_SPACE
    assert str(tmp_path) in caught.value.detail
    assert list(kv.scan(b"")) == [(b"b", b"second")]
    kv.put(b"c", b"third")
    kv.commit()
    kv.close()
    again = LmdbKeyValue(str(tmp_path))
    assert list(again.scan(b"")) == [(b"b", b"second"), (b"c", b"third")]
    again.close()


def test_a_file_that_is_not_a_database_is_refused(tmp_path):
    (tmp_path / "data.mdb").write_bytes(b"something else" * 1000)
    with pytest.raises(TideError, match="working copy") as caught:
        LmdbKeyValue(str(tmp_path))
    assert caught.value.code is Code.CORRUPT


def test_a_copy_is_made_while_it_is_written_to(tmp_path):
    (tmp_path / "kv").mkdir()
    (tmp_path / "copy").mkdir()
    kv = LmdbKeyValue(str(tmp_path / "kv"))
    for number in range(1000):
        kv.put(b"%04d" % number, b"old")
    kv.commit()
    copy_of_then = kv.copy_of_now()
    kv.put(b"0002", b"committed later")
    kv.commit()
    kv.put(b"0000", b"uncommitted")
    with (tmp_path / "copy" / "data.mdb").open("wb") as file:
        copy_of_then.write_to(file.fileno())
    kv.put(b"0001", b"later")
    copy = LmdbKeyValue(str(tmp_path / "copy"))
    assert {value for _, value in copy.scan(b"")} == {b"old"}
    assert kv.get(b"0000") == b"uncommitted"
    copy.close()
    kv.close()
