"""Locks, broken on purpose: see ``mutations.py``."""

from collections.abc import Mapping
from typing import Any

from tidefs.chunkserver.replication import Orders
from tidefs.client.appending import Appender
from tidefs.client.locks import Locks
from tidefs.client.pushing import Pusher
from tidefs.client.vfs_locks import LockOperations
from tidefs.metaserver.leases import Leases
from tidefs.metaserver.locks_order import Arbiter
from tidefs.metaserver.operations import sessions

from .mutation import Mutation, all_of, nothing, nothing_soon, patching

# --- the lock table ----------------------------------------------------------------------------


def _keeps_locks(_end_locks: Any) -> Any:
    return lambda *_, **__: []


def _forgets_the_first(waiting: Any) -> Any:
    """Of several who wait, one is not looked at."""
    return lambda self, place: waiting(self, place)[1:] or waiting(self, place)


def _serves_anybody(_has_its_turn: Any) -> Any:
    return lambda self, lock: self.is_free(lock)


def _sees_no_circle(_closes_circle: Any) -> Any:
    return lambda self, lock: False


def _old_tokens(take: Any) -> Any:
    return lambda self, lock, token: take(self, lock, max(1, token - token % 2 * 20))


def _short_leases(begin: Any) -> Any:
    """A session is over before its client knows."""

    def begin_short(self: Leases, lease_ms: int) -> None:
        begin(self, lease_ms)
        self._wait_ns //= 2

    return begin_short


# --- clients -----------------------------------------------------------------------------------


def _believes_for_ever(_in_doubt: Any) -> Any:
    return lambda self, file: False


# --- which runs show it ------------------------------------------------------------------------

TWO: Mapping[str, Any] = {
    "members": 1,
    "callers": 0,
    "lock_callers": 0,
    "clients": 2,
    "applications": 0,
    "rivals": 0,
    "lockers": 0,
    "counters": 0,
    "appenders": 0,
    "chunkservers": 1,
    "replicas": 1,
    "steps": 15,
    "think_max_s": 0.1,
    "faults": (),
    "pause_max_s": 1.0,
}
LOCKING = {**TWO, "lockers": 4}
COUNTING = {**TWO, "counters": 2}
LOSING = {**COUNTING, "steps": 40, "faults": ("strand_writer", "strand_client", "freeze_client")}
APPENDING = {**TWO, "appenders": 2}

BROKEN_LOCKS: dict[str, Mutation] = {
    "locks-outlive-sessions": Mutation(
        patched=patching(sessions, "end_locks", _keeps_locks),
        options={**LOCKING, "faults": ("kill_client",)},
    ),
    "forgets-waiters": Mutation(
        patched=patching(Arbiter, "waiting", _forgets_the_first), options=LOCKING
    ),
    "serves-anybody": Mutation(
        patched=patching(Arbiter, "has_its_turn", _serves_anybody), options=LOCKING
    ),
    "sees-no-circle": Mutation(
        patched=patching(Arbiter, "closes_circle", _sees_no_circle), options=LOCKING
    ),
    "old-tokens": Mutation(patched=patching(Arbiter, "take", _old_tokens), options=LOCKING),
    "short-leases": Mutation(
        patched=patching(Leases, "__init__", _short_leases),
        options={**LOCKING, "faults": ("freeze_client", "strand_client")},
    ),
    "unlocks-before-flush": Mutation(
        patched=patching(LockOperations, "_flush_locked", nothing_soon),
        options={**COUNTING, "mode": "nfs"},
    ),
    "believes-its-cache": Mutation(
        patched=patching(LockOperations, "take_over", nothing_soon),
        options={**COUNTING, "mode": "nfs"},
    ),
    "forgets-no-locks": Mutation(
        patched=all_of(
            patching(LockOperations, "_locks_lost", nothing),
            patching(LockOperations, "_locks_changed", nothing),
        ),
        options=LOSING,
    ),
    "takes-late-writes": Mutation(
        patched=all_of(
            patching(Orders, "check_fence", nothing),
            patching(Pusher, "grant_anew", nothing_soon),
        ),
        options=LOSING,
    ),
    "hears-no-notice": Mutation(
        patched=all_of(
            patching(Locks, "granted", nothing), patching(Locks, "_see_to_asking", nothing)
        ),
        options=LOCKING,
    ),
    "appends-without-turn": Mutation(
        patched=patching(Appender, "_take_turn", nothing_soon), options=APPENDING
    ),
}
