"""What a member does with an Append of its leader (Raft figure 2, the receiver's side). Pure."""

from collections.abc import Sequence

from ...fs.messages.raft import Append, AppendReply, Configuration
from .contract import Record
from .log_view import LogView
from .membership import Membership


def take_append(
    log: LogView,
    membership: Membership,
    commit_index: int,
    message: Append,
    records: Sequence[Record],
    configurations: Sequence[tuple[int, Configuration]],
) -> AppendReply:
    """Put into the log what is missing there. ``configurations`` are those among ``records``."""
    previous = message.previous_index
    if previous > commit_index and log.terms.at(previous) != message.previous_term:
        # Never before what is committed: up to there the logs agree (Leader Completeness).
        hint = max(commit_index, log.agreement(previous - 1, message.previous_term))
        hint_term = log.terms.at(hint)
        assert hint_term is not None, hint
        return AppendReply(message.term, False, previous, hint, hint_term)
    fresh = _fresh(log, records, commit_index)
    if fresh:
        first_index = fresh[0].index
        if first_index <= log.last_index:
            # Only at a real conflict: a late Append must not take back what came after it.
            assert first_index > commit_index, (first_index, commit_index)
            log.truncate_from(first_index)
            membership.truncated_from(first_index)
        log.append(fresh)
        for index, configuration in configurations:
            if index >= first_index:
                membership.appended(index, configuration)
    return AppendReply(message.term, True, max(previous + len(records), commit_index), 0, 0)


def _fresh(log: LogView, records: Sequence[Record], commit_index: int) -> Sequence[Record]:
    """Those that the log does not have: from the first one that conflicts, or is behind its end."""
    if not records:
        return ()
    if records[0].index == log.last_index + 1:
        return records
    for place, record in enumerate(records):
        if record.index > commit_index and log.terms.at(record.index) != record.term:
            return records[place:]
    return ()
