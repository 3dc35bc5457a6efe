"""What a configuration may say of the group, and in which words the rest is refused."""

import pytest
from tidefs.fs.config import parse
from tidefs.fs.errors import Code, TideError
from tidefs.metaserver.config import MetaserverConfig

BASE = 'cluster = "c"\nserver = 1\ndata = "d"\nlisten = ["tcp:h:1"]\nhost = "h"\n'


def member(server, address=None):
    return f'[[members]]\nserver = {server}\naddresses = ["{address or f"tcp:h:{server}"}"]\n'


def read(text):
    config = parse(BASE + text, "file", MetaserverConfig)
    config.check("file")
    return config


def refused(text, of=read):
    with pytest.raises(TideError) as caught:
        of(text)
    assert caught.value.code is Code.BAD_CONFIG
    return caught.value.detail


def test_without_members_it_is_a_group_of_one():
    (place,) = read("").founders("file")
    assert (place.server, place.host, place.addresses) == (1, "h", ["tcp:h:1"])


def test_three_founders():
    config = read(member(1, "tcp:other:9") + member(2) + member(3))
    assert [place.server for place in config.founders("file")] == [1, 2, 3]
    assert config.own_place.addresses == ["tcp:other:9"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (member(1) + member(1, "x"), "members names server 1 twice"),
        (member(0), "members server 0 must be between"),
        (member(1) + member(2, "tcp:h:1"), "tcp:h:1 cannot be of server 1 and of 2"),
        ("[[members]]\nserver = 1\naddresses = []\n", "members server 1 needs an address"),
        ("[[members]]\nserver = 1\n", "'members[0].addresses' is missing"),
        ('raft_heartbeat = "100ms"\n', "election_timeout must be at least four times"),
        ('raft_heartbeat = "0ms"\n', "raft_heartbeat must be"),
        ("".join(member(n) for n in range(1, 11)), "members can be 9 at most"),
    ],
)
def test_refusals_name_file_key_and_reason(text, words):
    detail = refused(text)
    assert detail.startswith("file: ")
    assert words in detail


def test_founders_are_an_odd_number_and_oneself_among_them():
    def founders(text):
        return read(text).founders("file")

    words = refused(member(1) + member(2), founders)
    assert "names 2 servers: a group of an even number" in words
    assert "does not name this server itself, 1" in refused(member(2), founders)
    assert len(read(member(1) + member(2)).members) == 2, "later it says only where they are"
