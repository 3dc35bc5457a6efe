"""Questions of strong reads: shared by all that come before one is asked, by nobody after."""

import trio
from tidefs.metaserver.raft.contract import ReadReady
from tidefs.metaserver.reading import Reads


class Asked:
    """Stands for the core."""

    def __init__(self):
        self.tokens = []

    def read(self, token, now_ns):
        self.tokens.append(token)


async def test_all_that_come_before_it_is_asked_share_a_question():
    reads, core = Reads(), Asked()
    assert reads.join() is reads.join()
    reads.ask(core, 0)
    reads.ask(core, 0)
    assert len(core.tokens) == 1


async def test_who_comes_later_asks_again():
    """A change may have been answered in between, which the first answer does not cover."""
    reads, core = Reads(), Asked()
    first = reads.join()
    reads.ask(core, 0)
    second = reads.join()
    assert second is not first
    reads.ask(core, 0)
    reads.learn([ReadReady(core.tokens[0], 5)])
    reads.applied(5)
    assert first.good
    assert not second.answered.is_set()


async def test_an_answer_waits_until_its_index_is_applied():
    reads, core = Reads(), Asked()
    question = reads.join()
    reads.ask(core, 0)
    reads.applied(6)
    reads.learn([ReadReady(core.tokens[0], 7)])
    reads.applied(6)
    assert not question.answered.is_set()
    reads.applied(8)
    assert question.good
    with trio.fail_after(1):
        await question.answered.wait()


async def test_no_answer_is_told_at_once():
    reads, core = Reads(), Asked()
    question = reads.join()
    reads.ask(core, 0)
    reads.learn([ReadReady(core.tokens[0], None), ReadReady(99, 3)])
    assert question.answered.is_set()
    assert not question.good
