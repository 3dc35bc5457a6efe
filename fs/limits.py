"""Every limit and default of TideFS, unit last in the name, relations asserted below."""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

# The wire.
PROTOCOL_VERSION_MIN = 1
PROTOCOL_VERSION_MAX = 1
FRAME_HEADER_MAX_BYTES = 1 * MIB
FRAME_PAYLOAD_MAX_BYTES = 4 * MIB
RECEIVE_BUFFER_BYTES = 256 * KIB
LARGE_FRAME_BYTES = 32 * KIB  # larger ones are received into memory of their own
NOTICE_BACKLOG_MAX_BYTES = 8 * MIB  # unsent: further notices are dropped
SEND_BACKLOG_BUSY_BYTES = 64 * MIB  # unsent: callers wait, requests are answered BUSY
SEND_BACKLOG_MAX_BYTES = 256 * MIB  # unsent: the other side does not read, the connection ends
CREDITS_PER_CONNECTION = 256
WAITING_CALLS_MAX = 4_096  # calls that wait for a credit, on one connection
BUSY_DELAY_MS = 20
HELLO_TIMEOUT_MS = 5_000
CALL_TIMEOUT_MS = 10_000
CONNECT_TIMEOUT_MS = 3_000
BACKOFF_FIRST_MS = 10
BACKOFF_MAX_MS = 1_000

# Sessions (NFSv4.1's slots: RFC 8881 section 2.10.6).
SESSION_LEASE_MS = 12_000
SESSION_KEEPALIVE_MS = 4_000
SESSION_SLOTS = 64
CLOCK_DRIFT_PARTS = 100  # one part in so many
CLOCK_DRIFT_MS = 50

# The name space.
NAME_MAX_BYTES = 255
SYMLINK_MAX_BYTES = 4_095
XATTR_NAME_MAX_BYTES = 255
XATTR_VALUE_MAX_BYTES = 64 * KIB
XATTRS_PER_INODE_MAX_BYTES = 64 * KIB
LINKS_MAX = 1_000_000
INLINE_MAX_BYTES = 8 * KIB
FILE_MAX_BYTES = 1 << 53
LOCK_END = 1 << 63  # the end of a lock that reaches to wherever the file may grow
READDIR_ENTRIES_MAX = 1_024
NAMES_LOOKED_AT_MAX = 1_024  # by one FindNames: some milliseconds of the leader's time

# Locks. A grant can split what its owner held, so there may be some more than these.
LOCKS_PER_INODE_MAX = 8_192  # of one kind
LOCK_WAITS_PER_INODE_MAX = 1_024  # of one kind
LOCKS_PER_SESSION_MAX = 32_768  # held, and waited for
LOCKS_LISTED_MAX = 2_048  # in one answer
LOCK_ASK_AGAIN_MS = 3_000  # who waits for a lock asks how it stands: a notice may be lost
APPEND_TURN_MS = 50  # so long a mount keeps its turn to append to a file, if nobody else waits

# Promises.
PROMISES_MAX = 1 << 19  # held, of all sessions; the oldest are recalled to make room
PROMISES_RECALLED_AT_ONCE = PROMISES_MAX // 64  # then
CLAIM_PATIENCE_MS = CALL_TIMEOUT_MS // 2  # who cannot have an inode alone by then asks again

# Chunks.
CHUNK_BYTES = 64 * MIB
CHECKSUM_BLOCK_BYTES = 64 * KIB
BLOCKS_PER_CHUNK = CHUNK_BYTES // CHECKSUM_BLOCK_BYTES
LAYOUT_CHUNKS_MAX = 64
EXTENT_CHUNKS_MAX = 4_096  # looked at for one GetExtents
REPLICAS_DEFAULT = 3
REPLICAS_MAX = 9
REPLICAS_MIN_DURING_REPAIR = 2
HANDLES_PER_RESERVATION = 1 << 20
REPORT_CHUNKS_PER_MESSAGE = 10_000
HEARTBEAT_MS = 1_000
CHUNKSERVER_DEAD_MS = 5_000
GARBAGE_GRACE_MS = 2 * SESSION_LEASE_MS

# The operation log.
LOG_SEGMENT_BYTES = 16 * MIB
LOG_RECORD_MAX_BYTES = 8 * MIB
ENTRY_PAYLOAD_MAX_BYTES = 1 * MIB  # beside the fields of its request
LOG_BATCH_MAX_ENTRIES = 1_024
CHECKPOINT_ENTRIES = 100_000
FREE_SPACE_RESERVE_BYTES = 32 * MIB
FREE_SPACE_RESERVE_PARTS = 20  # or one part in so many of the disk, whichever is less

# The group of metaservers (Raft). Ratios as in the paper's section 9.3: an election time-out is
# several heartbeats, and those are many times what a message and a sync take.
RAFT_HEARTBEAT_MS = 50
RAFT_ELECTION_MIN_MS = 250  # up to twice as long
MEMBERS_MAX = 9
APPEND_MAX_BYTES = 1 * MIB  # of bodies in one Append, but for one larger record
APPENDS_IN_FLIGHT_MAX = 64  # unanswered, to one member
SNAPSHOT_PIECE_BYTES = 1 * MIB
SNAPSHOT_PIECES_IN_FLIGHT = 4
SNAPSHOT_PIECE_MS = 3_000  # without an answer to a piece the connection is made anew
SNAPSHOT_SYNC_BYTES = 32 * MIB  # of a snapshot that comes in are in the page cache at most
ROOM_LOOK_MS = 500  # how often a leader looks whether its disk is nearly full
SNAPSHOT_LOOK_MS = 100  # how often a leader looks for who has fallen behind
SNAPSHOT_RETRY_MAX_MS = 2_000
SNAPSHOT_BUSY_MS = 200  # it is being verified and installed: ask again then
LINK_BACKOFF_FIRST_MS = 10  # from one member to another
LINK_BACKOFF_MAX_MS = 200
LINK_CHECK_MS = 300  # how often a member makes itself known to the others
LINK_SILENT_MAX_MS = 2_000  # without an answer to that the link is made anew
MEMBER_ALIVE_MS = 1_000  # who was heard of within this time lives

# Finding the leader, and noticing that it is gone.
SEARCH_FIRST_MS = 50  # between two questions to one member, with jitter
SEARCH_EAGER = 100  # so many questions before the pauses become longer
SEARCH_MAX_MS = 1_000
MEMBER_CONNECT_TIMEOUT_MS = 1_000  # to one address; all members are tried side by side
MEMBER_ANSWER_TIMEOUT_MS = 1_000
LEADER_TICK_MS = 250  # a call that is not answered from one tick to the next raises doubts
LEADER_DOUBT_TIMEOUT_MS = 250
LEADER_SILENT_MAX_MS = 1_500  # when no other member stands up for it
LEADER_REFRESH_MS = 4_000  # how often the leader is asked who the members are
RESUME_PIECES_MAX = 10_000  # inodes, and as many chunks, in one ResumeSession

# The client.
CACHE_BLOCK_BYTES = 128 * KIB
CACHE_BYTES = 256 * MIB
DIRTY_MAX_BYTES = 64 * MIB
WRITE_BEHIND_BYTES = 1 * MIB
CLONE_MIN_BYTES = 1 * MIB  # less is copied sooner than cloned: a clone is synced at once
CLONE_CHUNKS_MAX = 16  # for one copy_file_range, which then says how far it came
CLONES_IN_FLIGHT_MAX = 4
READ_AHEAD_BYTES = 4 * MIB
PUSHES_IN_FLIGHT_MAX = 8
WRITE_BEHIND_AGE_MS = 5_000
ATTRIBUTES_CACHED_MAX = 65_536
NAMES_CACHED_MAX = 131_072
LISTED_ENTRIES_MAX = 65_536  # of pages of directories
KERNEL_LISTINGS_MAX = 4_096  # directories of which the kernel may keep what it has read
LISTED_AT_ONCE_MAX = 192  # entries for one readdir of the kernel: 32 KiB, as getdents(2) asks for
FILES_IDLE_MAX = 16_384
DATA_PATIENCE_MS = 30_000
RELEASE_BATCH_MS = 200
READINGS_MAX = 1_024  # inodes in one NoteReadings
READINGS_BATCH_MS = 5_000  # for so long a reading may be known to this client only
READINGS_AT_END_MS = 1_000  # an unmount waits no longer for them
INTERRUPT_PATIENCE_MS = 2_000  # before an unanswered request ends with its caller
INTERRUPT_CHECK_MS = 250  # how often it is looked whether a caller that got a signal dies of it
RELEASES_MAX = 1_024  # inodes in one Release
SOFT_TIMEOUT_MS = 60_000
KERNEL_READ_AHEAD_BYTES = 1 * MIB
FIRST_LINK_TIMEOUT_MS = 20_000  # a mount that has found no metaserver by then fails
READ_HEDGE_MS = 500  # a replica that has not answered by then: another one is asked as well
WRITE_TIMEOUT_MS = 2 * CALL_TIMEOUT_MS  # the chain behind the primary gives up first
SYNC_TIMEOUT_MS = 3 * CALL_TIMEOUT_MS
NFS_TRUST_MIN_MS = 3_000
NFS_TRUST_MAX_MS = 60_000

assert SESSION_KEEPALIVE_MS * 2 < SESSION_LEASE_MS, "one lost keep-alive must not end a session"
assert LARGE_FRAME_BYTES * 2 <= RECEIVE_BUFFER_BYTES, "a small frame always fits"
assert FRAME_PAYLOAD_MAX_BYTES < NOTICE_BACKLOG_MAX_BYTES < SEND_BACKLOG_BUSY_BYTES
assert SEND_BACKLOG_BUSY_BYTES < SEND_BACKLOG_MAX_BYTES
assert CHUNK_BYTES % CHECKSUM_BLOCK_BYTES == 0
assert CHECKSUM_BLOCK_BYTES <= WRITE_BEHIND_BYTES <= FRAME_PAYLOAD_MAX_BYTES
assert CACHE_BLOCK_BYTES % CHECKSUM_BLOCK_BYTES == 0, "a cache block covers whole checksum blocks"
assert CHUNK_BYTES % CACHE_BLOCK_BYTES == 0, "a cache block lies in one chunk"
assert INLINE_MAX_BYTES <= CHECKSUM_BLOCK_BYTES
assert DIRTY_MAX_BYTES <= CACHE_BYTES
assert XATTR_VALUE_MAX_BYTES + INLINE_MAX_BYTES < FRAME_HEADER_MAX_BYTES < LOG_RECORD_MAX_BYTES
assert LOG_RECORD_MAX_BYTES < LOG_SEGMENT_BYTES
assert ENTRY_PAYLOAD_MAX_BYTES + FRAME_HEADER_MAX_BYTES < FRAME_PAYLOAD_MAX_BYTES, (
    "what one member puts into its log fits a frame to the others"
)
assert RAFT_HEARTBEAT_MS * 4 <= RAFT_ELECTION_MIN_MS, "some heartbeats may be lost"
assert RAFT_ELECTION_MIN_MS * 4 < SESSION_LEASE_MS, "sessions survive a few elections"
assert LINK_CHECK_MS * 2 < MEMBER_ALIVE_MS < LINK_SILENT_MAX_MS
assert APPEND_MAX_BYTES <= LOG_RECORD_MAX_BYTES
assert SNAPSHOT_PIECE_BYTES <= FRAME_PAYLOAD_MAX_BYTES
assert SEARCH_FIRST_MS < RAFT_ELECTION_MIN_MS, "an election costs its time, and hardly more"
assert RAFT_ELECTION_MIN_MS * 4 < LEADER_SILENT_MAX_MS, "a new one is told of before that"
assert RESUME_PIECES_MAX * (9 + 29) < FRAME_HEADER_MAX_BYTES
assert LOCKS_PER_SESSION_MAX * (9 + 19) < FRAME_HEADER_MAX_BYTES, "GetSessionLocks fits"
assert LOCKS_LISTED_MAX * (NAME_MAX_BYTES + 90) < FRAME_HEADER_MAX_BYTES, "and so does ListLocks"
assert READDIR_ENTRIES_MAX < PROMISES_RECALLED_AT_ONCE < PROMISES_MAX, "there is room for a reply"
assert PROMISES_RECALLED_AT_ONCE * 9 < FRAME_HEADER_MAX_BYTES, "and those fit one Recall"
assert HEARTBEAT_MS * 3 < CHUNKSERVER_DEAD_MS
assert NFS_TRUST_MIN_MS <= NFS_TRUST_MAX_MS
assert REPLICAS_MIN_DURING_REPAIR <= REPLICAS_DEFAULT <= REPLICAS_MAX
