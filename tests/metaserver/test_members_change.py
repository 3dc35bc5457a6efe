"""When a new member is given its vote: not before it has what was committed when it came."""

from types import SimpleNamespace

import pytest
import trio
import trio.testing
from tidefs.fs.messages.places import ServerPlace
from tidefs.fs.messages.raft import ChangeMembers, Configuration
from tidefs.fs.ports.clock import RealClock
from tidefs.metaserver.members import NEAR_ENTRIES, Members
from tidefs.metaserver.raft.contract import Progress

LAST = 7
"""A log that is much shorter than NEAR_ENTRIES."""


def places(*servers):
    return [ServerPlace(server, f"m{server}", [f"tcp:m{server}:1"]) for server in servers]


class FakeCore:
    """A leader's, of a group of three of which one is lost."""

    def __init__(self, clock):
        self._clock = clock
        self.configuration = Configuration([1, 2, 3], [], [], places(1, 2, 3), [])
        self.commit_index, self.next_index = LAST, LAST + 1
        self.match = {2: LAST, 4: 0}

    def progress(self):
        heard_ns = self._clock.monotonic_ns()
        return {
            server: Progress(match, match + 1, False, heard_ns)
            for server, match in self.match.items()
        }


class FakeDriver:
    """Changes the configuration at once."""

    def __init__(self, core):
        self.core = core

    async def until(self, condition):
        assert condition()

    async def change_members(self, voters, learners, new_places):
        self.core.configuration = Configuration(
            list(voters), [], list(learners), list(new_places), []
        )


@pytest.mark.parametrize("grown", [0, NEAR_ENTRIES])
async def test_who_has_nothing_gets_no_vote_however_short_the_log_is(
    grown, nursery, autojump_clock
):
    clock = RealClock()
    core = FakeCore(clock)
    members = Members(FakeDriver(core), clock, 1)
    asker = SimpleNamespace(closed=False)
    done = trio.Event()

    async def change():
        await members.change(ChangeMembers(places(4), [3]), asker)
        done.set()

    nursery.start_soon(change)
    await trio.testing.wait_all_tasks_blocked()
    core.next_index += grown
    for match in (0, LAST - 1):
        core.match[4] = match
        await trio.sleep(1)
        assert core.configuration.learners == [4]
        assert not done.is_set()
    core.match[4] = LAST
    await done.wait()
    assert core.configuration.voters == [1, 2, 4]
