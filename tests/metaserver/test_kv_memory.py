"""The in-memory key-value store against a plain dict."""

from hypothesis import given
from hypothesis import strategies as st
from tidefs.metaserver.kv_memory import MemoryKeyValue

SHORT = st.binary(min_size=1, max_size=3).map(lambda key: bytes(byte % 4 for byte in key))


def test_get_put_delete():
    kv = MemoryKeyValue()
    assert kv.get(b"a") is None
    kv.put(b"a", b"")
    assert kv.get(b"a") == b""
    kv.put(b"a", b"1")
    assert kv.get(b"a") == b"1"
    assert kv.delete(b"a")
    assert not kv.delete(b"a")
    assert kv.get(b"a") is None


def test_a_value_that_is_empty_was_there():
    kv = MemoryKeyValue()
    kv.put(b"a", b"")
    assert kv.delete(b"a")


@given(st.dictionaries(SHORT, st.binary(max_size=2)), st.binary(max_size=2), SHORT | st.just(b""))
def test_scan(items, prefix, after):
    kv = MemoryKeyValue()
    for key, value in items.items():
        kv.put(key, value)
    wanted = [(key, items[key]) for key in sorted(items) if key.startswith(prefix) and key > after]
    assert list(kv.scan(prefix, after)) == wanted


def test_an_abandoned_scan():
    kv = MemoryKeyValue()
    for number in range(10):
        kv.put(bytes([number]), b"")
    scan = kv.scan(b"")
    next(scan)
    kv.put(b"new", b"")
    del scan
    assert len(list(kv.scan(b""))) == 11
