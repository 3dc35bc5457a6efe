"""Whether all members of a group have the same state: by the checksum that each makes of it."""

from typing import NamedTuple

import msgspec
import trio

from ..fs.errors import TideError
from ..fs.messages.raft import Digest, GetDigest
from .members import OUTSIDE, Lookout, Seen, View
from .target import Target
from .tell import count

DIGEST_TIMEOUT_MS = 120_000
VERIFY_ROUNDS = 20
VERIFY_PAUSE_MS = 200


class Verification(msgspec.Struct):
    """Whether the members have the same state. ``agree`` None: it could not be found out."""

    agree: bool | None
    sentence: str
    digests: dict[str, tuple[int, str]]  # by name: at which index, in 16 hex digits


class _Compared(NamedTuple):
    """Digests by index and server."""

    by_index: dict[int, dict[int, int]]

    def note(self, answers: dict[int, Digest]) -> None:
        for server, digest in answers.items():
            self.by_index.setdefault(digest.applied_index, {})[server] = digest.digest

    def differ(self) -> int | None:
        """An index at which two members had different states."""
        return next((i for i, found in self.by_index.items() if len(set(found.values())) > 1), None)

    def agree(self, servers: set[int]) -> int | None:
        """An index at which all of these had the same state."""
        return next((i for i, found in self.by_index.items() if servers <= set(found)), None)


async def compare(target: Target, lookout: Lookout, view: View) -> Verification:
    """Ask for checksums of the states until those of all that are up are of the same index.

    Two that differ at one index are told at once; members that keep changing while they are asked
    are told as not compared.
    """
    members = [
        one for one in view.members if one.status is not None and one.status.role not in OUTSIDE
    ]
    servers = {one.server for one in members}
    compared = _Compared({})
    latest: dict[int, Digest] = {}
    troubles: dict[int, str] = {}
    for _ in range(VERIFY_ROUNDS):
        answers, troubles = await _digests(lookout, members)
        latest |= answers
        compared.note(answers)
        if compared.differ() is not None or compared.agree(servers) is not None or troubles:
            break
        await trio.sleep(VERIFY_PAUSE_MS / 1000)
    digests = {
        target.name_of(server): (digest.applied_index, f"{digest.digest:016x}")
        for server, digest in latest.items()
    }
    agree, sentence = _verdict(target, servers, compared, troubles)
    return Verification(agree=agree, sentence=sentence, digests=digests)


async def _digests(
    lookout: Lookout, members: list[Seen]
) -> tuple[dict[int, Digest], dict[int, str]]:
    answers: dict[int, Digest] = {}
    troubles: dict[int, str] = {}

    async def of_one(one: Seen) -> None:
        try:
            answers[one.server] = await lookout.asker.ask(
                one.addresses, GetDigest(), timeout_ms=DIGEST_TIMEOUT_MS
            )
        except TideError as error:
            troubles[one.server] = error.detail or str(error)

    async with trio.open_nursery() as nursery:
        for one in members:
            nursery.start_soon(of_one, one)
    return answers, troubles


def _verdict(
    target: Target, servers: set[int], compared: _Compared, troubles: dict[int, str]
) -> tuple[bool | None, str]:
    if (index := compared.differ()) is not None:
        states = ", ".join(
            f"{target.name_of(server)} {digest:016x}"
            for server, digest in compared.by_index[index].items()
        )
        return False, (
            f"the states differ after record {index:,}: {states}. This is a bug in TideFS or a"
            " broken machine: keep all folders, and replace the one that differs from the majority"
        )
    if (index := compared.agree(servers)) is not None:
        members = count(len(servers), "member")
        return True, f"the states of {members} are the same after record {index:,}"
    if troubles:
        whys = "; ".join(f"{target.name_of(server)}: {why}" for server, why in troubles.items())
        return None, f"the states were not compared: {whys}"
    return None, (
        f"the states could not be compared: they changed during each of {VERIFY_ROUNDS} attempts;"
        " try again when less is being written"
    )
