"""What is wrong with a message, in words, before it changes anything. Pure."""

from collections.abc import Sequence

from ...fs.codec import decode
from ...fs.errors import Code, TideError
from ...fs.messages.raft import (
    Append,
    AppendReply,
    Configuration,
    Heartbeat,
    HeartbeatReply,
    RaftMessage,
    ReadIndex,
    RequestVote,
    VoteReply,
)
from .contract import TERM_MAX, Envelope, Kind, Record
from .log_view import LogView


def check_envelope(envelope: Envelope, server: int) -> None:
    """Whether it is for ``server``, and its term one that can be. INVALID, MALFORMED."""
    sender, receiver, message, records = envelope
    if receiver != server:
        raise _invalid(f"a message for {receiver:016x} came to {server:016x}")
    if sender == server:
        raise _invalid(f"two members have the id {server:016x}; one of them must not run")
    if sender <= 0:
        raise _malformed(f"{sender} is not the id of a member")
    # Who has never seen an election may refuse a pre-vote.
    least_term = 0 if isinstance(message, VoteReply) else 1
    if not least_term <= message.term <= TERM_MAX:
        raise _malformed(f"{sender:016x} speaks of term {message.term}, from 1 to {TERM_MAX} are")
    if isinstance(message, Append):
        _check_append(sender, message, records)
    elif records:
        raise _malformed(f"{sender:016x} sent records with a {type(message).__name__}")
    else:
        _check_numbers(sender, message)


def _check_append(sender: int, message: Append, records: Sequence[Record]) -> None:
    if message.count != len(records):
        raise _malformed(f"{sender:016x} sent {len(records)} records and says {message.count}")
    if min(message.previous_index, message.previous_term, message.commit_index) < 0:
        raise _malformed(f"{sender:016x} sent an Append with a negative number")
    if (message.previous_index == 0) != (message.previous_term == 0):
        raise _malformed(
            f"{sender:016x} says that record {message.previous_index} is of term "
            f"{message.previous_term}"
        )
    index, term = message.previous_index, message.previous_term
    for record in records:
        index += 1
        if record.index != index:
            raise _malformed(f"{sender:016x} sent record {record.index} in place of {index}")
        if record.term < term:
            raise _malformed(
                f"{sender:016x} sent record {index} of term {record.term} behind one of {term}"
            )
        term = record.term
    if term > message.term:
        raise _malformed(
            f"{sender:016x} sent record {index} of term {term} while it is {message.term}"
        )
    if records and records[0].term == 0:
        raise _malformed(f"{sender:016x} sent record {records[0].index} of term 0")


def _check_numbers(sender: int, message: RaftMessage) -> None:
    numbers: tuple[int, ...] = ()
    match message:
        case RequestVote(term, last_index, last_term):
            numbers = (last_index, last_term)
            if last_term >= term:
                raise _malformed(
                    f"{sender:016x} stands for term {term} with records of {last_term}"
                )
        case AppendReply():
            numbers = (message.index, message.hint_index, message.hint_term)
        case Heartbeat():
            numbers = (message.commit_index, message.round)
        case HeartbeatReply():
            numbers = (message.last_index, message.round)
        case ReadIndex():
            numbers = (message.index + 1,)
    if numbers and min(numbers) < 0:
        raise _malformed(f"{sender:016x} sent a {type(message).__name__} with a negative number")


def configurations_in(sender: int, records: Sequence[Record]) -> list[tuple[int, Configuration]]:
    """Those among the records, with their indexes. MALFORMED when one makes no sense."""
    found = []
    for record in records:
        if record.kind == Kind.MEMBERS:
            configuration = decode(Configuration, record.body)
            if not configuration.voters:
                raise _malformed(f"{sender:016x} sent record {record.index}: a group of nobody")
            found.append((record.index, configuration))
    return found


def check_follows(envelope: Envelope, log: LogView, commit_index: int, leader: int) -> None:
    """Whether an Append or Heartbeat can be from who leads in its term; ``leader``: who is known
    to, or 0. INVALID."""
    sender, _, message, records = envelope
    if leader and sender != leader:
        raise _invalid(f"{sender:016x} claims term {message.term}, in which another one leads")
    if isinstance(message, Heartbeat):
        if message.commit_index > log.last_index:
            raise _invalid(
                f"{sender:016x} knows this member to have record {message.commit_index}, and "
                f"{log.last_index} is its last: it has lost what it promised; replace it"
            )
        return
    assert isinstance(message, Append)
    index, term, rest = message.previous_index, message.previous_term, iter(records)
    while index <= commit_index:
        if log.terms.at(index) not in (None, term):
            raise _invalid(f"{sender:016x} would replace record {index}, a committed one")
        following = next(rest, None)
        if following is None:
            break
        index, term = following.index, following.term


def check_reply(envelope: Envelope, last_index: int, last_round: int) -> None:
    """Whether an answer of this very term can be one to what this leader has sent. INVALID."""
    sender, _, message, _ = envelope
    if isinstance(message, AppendReply) and message.accepted and message.index > last_index:
        raise _invalid(
            f"{sender:016x} confirms record {message.index}, and {last_index} is the last one"
        )
    if isinstance(message, HeartbeatReply) and message.round > last_round:
        raise _invalid(
            f"{sender:016x} answers round {message.round}, and {last_round} is the last one"
        )


def _invalid(why: str) -> TideError:
    return TideError(Code.INVALID, why)


def _malformed(why: str) -> TideError:
    return TideError(Code.MALFORMED, why)
