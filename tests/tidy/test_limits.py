"""Limits carry their unit in their name, and the relations between them hold."""

import re

from tidefs.fs import limits


def constants():
    return {name: value for name, value in vars(limits).items() if re.fullmatch("[A-Z_0-9]+", name)}


def test_every_limit_is_a_whole_positive_number():
    for name, value in constants().items():
        assert isinstance(value, int), name
        assert value > 0, name


def test_times_and_sizes_end_in_their_unit():
    wrong = [name for name in constants() if re.search("(TIMEOUT|LEASE|DELAY|TTL)$", name)]
    assert not wrong


def test_relations():
    assert limits.SESSION_KEEPALIVE_MS * 2 < limits.SESSION_LEASE_MS
    assert limits.CALL_TIMEOUT_MS < limits.SESSION_LEASE_MS, "one slow call must not end a session"
    assert limits.CONNECT_TIMEOUT_MS < limits.CALL_TIMEOUT_MS
    assert limits.BACKOFF_FIRST_MS < limits.BACKOFF_MAX_MS < limits.SESSION_KEEPALIVE_MS
    assert limits.CHUNK_BYTES % limits.CHECKSUM_BLOCK_BYTES == 0
    assert limits.CHECKSUM_BLOCK_BYTES <= limits.FRAME_PAYLOAD_MAX_BYTES
    assert limits.LOG_RECORD_MAX_BYTES < limits.LOG_SEGMENT_BYTES
    assert limits.HEARTBEAT_MS * 3 < limits.CHUNKSERVER_DEAD_MS
    assert limits.GARBAGE_GRACE_MS > limits.SESSION_LEASE_MS
    assert limits.REPLICAS_MIN_DURING_REPAIR <= limits.REPLICAS_DEFAULT <= limits.REPLICAS_MAX
    assert limits.NFS_TRUST_MIN_MS <= limits.NFS_TRUST_MAX_MS
