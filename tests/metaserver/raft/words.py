"""What members say and store, in words short enough for the traces of scripts."""

from collections.abc import Callable, Iterable, Sequence

from tidefs.fs.codec import decode
from tidefs.fs.messages.raft import (
    Append,
    AppendReply,
    AskReadIndex,
    Configuration,
    Heartbeat,
    HeartbeatReply,
    ReadIndex,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from tidefs.metaserver.raft.contract import Envelope, Kind, Record

Name = Callable[[int], str]


def configuration(found: Configuration, name: Name) -> str:
    """``1 2 3``; while joint ``1 2 3 and 1 4 5``, the new ones first."""
    said = [names(found.voters, name)]
    if found.voters_before:
        said.append(f"and {names(found.voters_before, name)}")
    if found.learners:
        said.append(f"learners {names(found.learners, name)}")
    if found.removed:
        said.append(f"removed {names(found.removed, name)}")
    return ", ".join(part for part in said if part) or "nobody"


def names(servers: Iterable[int], name: Name) -> str:
    """With blanks between them."""
    return " ".join(name(server) for server in servers)


def record(found: Record, name: Name) -> str:
    """Index, term, and what is in it: ``4/2 x``."""
    if found.kind is Kind.NOOP:
        body = "noop"
    elif found.kind is Kind.MEMBERS:
        body = f"members [{configuration(decode(Configuration, found.body), name)}]"
    else:
        body = found.body.decode()
    return f"{found.index}/{found.term} {body}".rstrip()


def records(found: Sequence[Record], name: Name) -> str:
    """All of them, or that there is none."""
    return ", ".join(record(each, name) for each in found) or "nothing"


def envelope(sent: Envelope, name: Name) -> str:
    """From whom, to whom, what; the term stands last."""
    message = sent.message
    return f"{name(sent.sender)} -> {name(sent.receiver)} {_message(sent, name)} ({message.term})"


def _message(sent: Envelope, name: Name) -> str:  # noqa: PLR0911
    match sent.message:
        case RequestVote() as asked:
            kind = "pre-vote" if asked.pre else "vote"
            why = ", the leader wants it" if asked.transfer else ""
            return f"{kind}? log ends with {asked.last_index}/{asked.last_term}{why}"
        case VoteReply() as reply:
            kind = "pre-vote" if reply.pre else "vote"
            return f"{kind}: {'yes' if reply.granted else 'no'}"
        case Append() as append:
            behind = f"{append.previous_index}/{append.previous_term}"
            what = records(sent.records, name)
            return f"append after {behind}: {what}; commit {append.commit_index}"
        case AppendReply(accepted=True) as reply:
            return f"has all up to {reply.index}"
        case AppendReply() as reply:
            hint = f"{reply.hint_index}/{reply.hint_term}"
            return f"does not have {reply.index}, perhaps {hint}"
        case Heartbeat() as beat:
            return f"heartbeat {beat.round}, commit {beat.commit_index}"
        case HeartbeatReply() as reply:
            return f"heard {reply.round}, log ends with {reply.last_index}"
        case TimeoutNow():
            return "stand for election now"
        case AskReadIndex() as asked:
            return f"read {asked.token} at?"
        case ReadIndex() as told:
            return f"read {told.token} at {told.index}"
    raise AssertionError(sent)
