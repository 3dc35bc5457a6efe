"""The service over a real connection: sessions, exactly once, compounds, open files, status."""

import pytest
import trio
from tidefs.fs.attributes import Kind
from tidefs.fs.config import Duration
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import ENTRY_PAYLOAD_MAX_BYTES
from tidefs.fs.messages import meta
from tidefs.fs.messages.chunk import Register
from tidefs.fs.messages.places import ServerPlace
from tidefs.fs.rpc import Mutation

from .live import Metaserver, eventually, until


@pytest.fixture
async def server(tmp_path, nursery):
    return await Metaserver(tmp_path, nursery).start()


def unlink(name: str) -> meta.Unlink:
    return meta.Unlink(1, name.encode())


def step(request) -> meta.Step:
    return meta.Step(request.METHOD, [getattr(request, f) for f in request.__struct_fields__])


async def refused(code: Code, awaitable) -> TideError:
    with pytest.raises(TideError) as caught:
        await awaitable
    assert caught.value.code is code, caught.value
    return caught.value


# --- the name space ------------------------------------------------------------------------------


async def test_what_was_made_is_found(server):
    client = await server.client()
    inode = await client.create("file")
    found = await client.call(meta.Lookup(1, b"file"))
    assert found.attributes.inode == inode
    assert found.parent.inode == 1
    listing = await client.call(meta.ReadDirectory(1, 0, 100))
    assert [entry.name for entry in listing.entries] == [b"file"]
    node = await client.change(meta.SetXattr(inode, b"user.a", b"value", 0))
    assert node.attributes.inode == inode
    assert (await client.call(meta.GetXattr(inode, b"user.a"))).value == b"value"
    assert (await client.call(meta.ListXattrs(inode))).names == [b"user.a"]
    await client.change(meta.MakeSymlink(1, b"link", b"target", 0, 0))
    link = (await client.call(meta.Lookup(1, b"link"))).attributes.inode
    assert (await client.call(meta.ReadLink(link))).target == b"target"
    assert (await client.call(meta.GetAttributes(link))).attributes.kind is Kind.SYMLINK


async def test_inline_bytes_come_with_the_open(server):
    client = await server.client()
    inode = await client.create("file")
    commit = meta.Commit(inode, 5, None, [meta.Patch(0, 5)], [], 0, True)
    node = await client.change(commit, payload=[b"hello"])
    opened, payload = await client.peer.exchange(meta.Open(inode, 0))
    assert (opened.inline, bytes(payload)) == (True, b"hello")
    version = node.attributes.data_version
    opened, payload = await client.peer.exchange(meta.GetContent(inode, version))
    assert (opened.inline, bytes(payload)) == (True, b"")


async def test_acknowledged_changes_survive_a_crash(server):
    client = await server.client()
    for number in range(50):
        await client.create(f"f{number}")
    await server.stop(crash=True)
    await server.start()
    await client.resume()
    listing = await client.call(meta.ReadDirectory(1, 0, 100))
    assert len(listing.entries) == 50
    await client.create("another")


# --- exactly once --------------------------------------------------------------------------------


async def test_a_repetition_gets_the_first_answer(server):
    client = await server.client()
    inode = await client.create("file")
    again = await client.change(
        meta.Create(1, b"file", Kind.FILE, 0o644, 0, 0, 0, True, False), sequence=1
    )
    assert again.attributes.inode == inode
    await server.stop(crash=True)
    await server.start()
    await client.resume()
    again = await client.change(
        meta.Create(1, b"file", Kind.FILE, 0o644, 0, 0, 0, True, False), sequence=1
    )
    assert again.attributes.inode == inode


async def test_a_repetition_in_flight_is_not_done_twice(server):
    client = await server.client()
    before = len(server.disk.syncs)
    server.disk.sync_gate = trio.Event()
    create = meta.Create(1, b"file", Kind.FILE, 0o644, 0, 0, 0, True, False)
    found = []

    async def ask():
        found.append(await client.change(create, sequence=1))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
        await until(lambda: len(server.disk.syncs) > before)
        await refused(Code.BUSY, client.change(unlink("x"), sequence=2))
        server.disk.sync_gate.set()
    assert len({entry.attributes.inode for entry in found}) == 1
    space = await client.call(meta.GetSpace())
    assert space.inodes == 2


async def test_an_older_sequence_is_stale(server):
    client = await server.client()
    await client.create("a")
    await client.create("b")
    await refused(Code.STALE_SEQUENCE, client.change(unlink("a"), sequence=1))


async def test_a_late_repetition_of_what_was_refused_is_not_carried_out(server):
    client = await server.client()
    await refused(Code.NO_ENTRY, client.change(unlink("file"), sequence=1))
    other = await server.client()
    await other.create("file")
    await refused(Code.NO_ENTRY, client.change(unlink("file"), sequence=1))
    await client.change(unlink("file"), sequence=2)
    await refused(Code.STALE_SEQUENCE, client.change(unlink("file"), sequence=1))


async def test_what_was_refused_leaves_no_entry(server):
    client = await server.client()
    before = (await client.call(meta.GetStatus())).applied_index
    await refused(Code.NO_ENTRY, client.change(unlink("file")))
    assert (await client.call(meta.GetStatus())).applied_index == before


async def test_a_change_that_would_not_fit_a_frame_to_the_other_members_is_refused(server):
    client = await server.client()
    before = (await client.call(meta.GetStatus())).applied_index
    payload = [bytes(ENTRY_PAYLOAD_MAX_BYTES + 1)]
    request = meta.MakeDirectory(1, b"large", 0o755, 0, 0)
    await refused(Code.TOO_LARGE, client.change(request, payload))
    assert (await client.call(meta.GetStatus())).applied_index == before


async def test_changes_need_a_session_that_lives(server):
    client = await server.client()
    await refused(Code.MALFORMED, client.peer.call(unlink("a")))
    mutation = Mutation(999, 0, 1)
    await refused(Code.SESSION_EXPIRED, client.peer.call(unlink("a"), mutation=mutation))
    mutation = Mutation(client.session, 64, 1)
    await refused(Code.MALFORMED, client.peer.call(unlink("a"), mutation=mutation))


# --- sessions ------------------------------------------------------------------------------------


async def test_the_same_nonce_is_the_same_session(server):
    client = await server.client()
    opened = await client.peer.call(meta.OpenSession(client.nonce, "here", 1))
    assert opened.session == client.session


async def test_a_silent_session_expires_and_lets_go(tmp_path, nursery):
    server = await Metaserver(tmp_path, nursery, session_lease=Duration(200)).start()
    silent, other = await server.client(), await server.client()
    inode = await silent.create("file")
    await silent.call(meta.Open(inode, 0))
    await silent.change(unlink("file"))

    async def alone():
        await other.call(meta.KeepAlive(other.session))
        return (await other.call(meta.GetStatus())).sessions == 1

    await eventually(alone)
    await refused(Code.SESSION_EXPIRED, silent.create("another"))
    await refused(Code.SESSION_EXPIRED, silent.call(meta.KeepAlive(silent.session)))
    await refused(Code.SESSION_EXPIRED, silent.resume())

    async def reaped():
        return (await other.call(meta.GetSpace())).inodes == 1

    await eventually(reaped)


async def test_closing_a_session_ends_it_at_once(server):
    client = await server.client()
    await client.call(meta.CloseSession(client.session))
    await refused(Code.SESSION_EXPIRED, client.create("file"))
    await client.call(meta.CloseSession(client.session))


# --- open files ----------------------------------------------------------------------------------


async def test_an_unlinked_file_lives_until_it_is_closed(server):
    client = await server.client()
    inode = await client.create("file", opened=True)
    await client.change(unlink("file"))
    assert (await client.call(meta.GetAttributes(inode))).attributes.links == 0
    other = await server.client()
    await other.call(meta.Open(inode, 0))
    await client.call(meta.Release([inode]))
    assert (await client.call(meta.GetAttributes(inode))).attributes.links == 0
    await other.call(meta.Release([inode]))
    await _gone(client, inode)


async def test_an_unlinked_file_that_nobody_has_open_goes_at_once(server):
    client = await server.client()
    inode = await client.create("file")
    await client.change(unlink("file"))
    await _gone(client, inode)
    await refused(Code.STALE_HANDLE, client.call(meta.Open(inode, 0)))


async def make_unnamed(client):
    request = meta.CreateUnnamed(1, 0o600, 0, 0, 0, True)
    return (await client.change(request)).attributes.inode


async def test_an_unnamed_file_lives_until_it_is_closed_or_its_session_ends(server):
    client, other = await server.client(), await server.client()
    released, left, named = [await make_unnamed(client) for _ in range(3)]
    await client.change(meta.Link(named, 1, b"name"))
    for inode in (released, left, named):
        await other.call(meta.GetAttributes(inode))
    await client.call(meta.Release([released]))
    await _gone(other, released)
    await other.call(meta.GetAttributes(left))
    await client.call(meta.CloseSession(client.session))
    await _gone(other, left)
    assert (await other.call(meta.GetAttributes(named))).attributes.links == 1


async def test_an_unnamed_file_survives_a_restart_of_the_server(server):
    client = await server.client()
    kept, forgotten = await make_unnamed(client), await make_unnamed(client)
    await server.stop(crash=True)
    await server.start()
    await client.resume(open_inodes=[kept])
    await _gone(client, forgotten)
    await client.change(meta.Link(kept, 1, b"name"))
    assert (await client.call(meta.Lookup(1, b"name"))).attributes.inode == kept


async def test_an_unlinked_open_file_survives_a_restart_of_the_server(server):
    client, other = await server.client(), await server.client()
    inode = await client.create("file", opened=True)
    await client.change(unlink("file"))
    await server.stop(crash=True)
    await server.start()
    await other.resume()
    assert (await other.call(meta.GetAttributes(inode))).attributes.links == 0
    await client.resume(open_inodes=[inode])
    assert (await client.call(meta.GetAttributes(inode))).attributes.links == 0
    await client.call(meta.Release([inode]))
    await _gone(client, inode)


async def test_what_a_resumed_session_has_closed_goes(server):
    client = await server.client()
    inode = await client.create("file", opened=True)
    await client.change(unlink("file"))
    await server.stop(crash=True)
    await server.start()
    await client.resume()
    await _gone(client, inode)


async def _gone(client, inode):
    async def gone():
        try:
            await client.call(meta.GetAttributes(inode))
        except TideError as error:
            return error.code is Code.STALE_HANDLE
        return False

    await eventually(gone)


async def test_opening_needs_a_session(server):
    client = await server.client()
    inode = await client.create("file")
    stranger = await server.connect()
    await refused(Code.INVALID, stranger.call(meta.Open(inode, 0)))
    assert await stranger.call(meta.GetContent(inode, 0))


# --- compounds -----------------------------------------------------------------------------------


async def test_a_compound_goes_on_with_what_the_step_before_found(server):
    client = await server.client()
    inode = await client.create("file")
    commit = meta.Commit(inode, 5, None, [meta.Patch(0, 5)], [], 0, True)
    await client.change(commit, payload=[b"hello"])
    compound = meta.Compound(
        [step(meta.Lookup(1, b"file")), step(meta.GetAttributes(0)), step(meta.Open(0, 0))]
    )
    found, payload = await client.peer.exchange(compound)
    assert (found.code, len(found.outcomes)) == (0, 3)
    assert found.outcomes[1].fields[0][0] == inode
    assert bytes(payload) == b"hello"


async def test_a_compound_ends_at_the_first_failure(server):
    client = await server.client()
    compound = meta.Compound([step(meta.GetAttributes(1)), step(meta.Lookup(1, b"nobody"))] * 2)
    found = await client.call(compound)
    assert (found.code, len(found.outcomes)) == (Code.NO_ENTRY, 1)


async def test_a_change_in_a_compound_happens_once(server):
    client = await server.client()
    create = meta.Create(1, b"file", Kind.FILE, 0o644, 0, 0, 0, True, True)
    compound = meta.Compound([step(create), step(meta.GetAttributes(0))])
    first = await client.change(compound, sequence=1)
    again = await client.change(compound, sequence=1)
    assert first.code == again.code == 0
    assert first.outcomes[0].fields == again.outcomes[0].fields
    assert first.outcomes[1].fields[0][0] == first.outcomes[0].fields[0][0]


async def test_a_compound_that_is_none_is_refused(server):
    client = await server.client()
    await refused(Code.INVALID, client.call(meta.Compound([])))
    two = [step(unlink("a")), step(unlink("b"))]
    await refused(Code.INVALID, client.change(meta.Compound(two)))
    inner = meta.Compound([step(meta.GetAttributes(1))])
    nested = meta.Step(meta.Compound.METHOD, [[list(map(list, []))]])
    await refused(Code.INVALID, client.call(meta.Compound([nested])))
    found = await client.call(meta.Compound([meta.Step(0x0FFF, [])]))
    assert found.code == Code.UNKNOWN_METHOD
    assert (await client.call(inner)).code == 0


# --- the cluster ---------------------------------------------------------------------------------


async def test_status_says_who_is_there(server):
    client = await server.client()
    found = await client.call(meta.GetStatus())
    assert (found.cluster, found.sessions, found.inodes) == ("cluster", 1, 1)
    assert found.servers[0].state == "leader"
    assert any("0 chunkservers are up" in problem for problem in found.problems)


async def test_only_a_chunkserver_registers_as_one(server):
    client = await server.client()
    place = ServerPlace(5, "host", ["unix:/nowhere"])
    await refused(Code.WRONG_ROLE, client.call(Register(place, 1, 0, 0)))


async def test_a_foreign_folder_is_refused(tmp_path, nursery):
    server = await Metaserver(tmp_path, nursery).start()
    await server.stop()
    other = Metaserver(tmp_path, nursery, cluster="another")
    other.disk = server.disk
    with pytest.raises(TideError, match="belongs to cluster cluster, not another") as caught:
        await other._run(task_status=trio.TASK_STATUS_IGNORED)
    assert caught.value.code is Code.FOREIGN_FOLDER
    strange = Metaserver(tmp_path, nursery)
    strange.disk.open("holiday.jpg", create=True)
    with pytest.raises(TideError, match=r"holds holiday\.jpg"):
        await strange._run(task_status=trio.TASK_STATUS_IGNORED)
