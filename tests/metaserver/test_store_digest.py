"""The digest of a whole state: the same for both kinds of store, and while one is closed."""

import trio
from tidefs.fs.messages.meta import MakeDirectory
from tidefs.metaserver.kv_lmdb import LmdbKeyValue
from tidefs.metaserver.kv_memory import MemoryKeyValue
from tidefs.metaserver.state import State
from tidefs.metaserver.store_lmdb import LmdbStore
from tidefs.metaserver.store_memory import MemoryStore


def filled(kv, cluster):
    state = State(kv)
    for entry in cluster.log:
        state.apply(entry)
    return state


async def test_both_stores_agree_with_the_state(cluster, tmp_path):
    cluster.directory(b"one")
    lmdb_kv = LmdbKeyValue(str(tmp_path))
    store = LmdbStore(str(tmp_path), lmdb_kv)
    state = filled(lmdb_kv, cluster)
    memory_kv = MemoryKeyValue()
    filled(memory_kv, cluster)
    store.commit()
    found = await store.digest()
    assert found == (cluster.index, state.digest())
    assert found == await MemoryStore(None, memory_kv).digest()
    store.close()


async def test_it_is_of_what_was_committed(cluster, tmp_path):
    kv = LmdbKeyValue(str(tmp_path))
    store = LmdbStore(str(tmp_path), kv)
    state = filled(kv, cluster)
    store.commit()
    before = await store.digest()
    cluster.apply(MakeDirectory(1, b"new", 0o755, 1, 2))
    state.apply(cluster.log[-1])
    assert await store.digest() == before
    store.commit()
    assert await store.digest() == (cluster.index, state.digest()) != before
    store.close()


async def test_a_store_is_not_closed_under_who_reads_it(cluster, tmp_path, monkeypatch):
    kv = LmdbKeyValue(str(tmp_path))
    store = LmdbStore(str(tmp_path), kv)
    filled(kv, cluster)
    store.commit()
    begun, may_end = trio.Event(), trio.Event()
    digest, closed = kv.digest, []

    def slow(key):
        trio.from_thread.run_sync(begun.set)
        trio.from_thread.run(may_end.wait)
        assert not closed
        return digest(key)

    monkeypatch.setattr(kv, "digest", slow)
    close = kv.close
    monkeypatch.setattr(kv, "close", lambda: (closed.append(True), close()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.digest)
        await begun.wait()
        store.close()
        assert not closed
        may_end.set()
    assert closed
