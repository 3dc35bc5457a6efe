"""Mount options from text."""

import pytest
from tidefs.client.modes import MODES
from tidefs.client.options import (
    OPTIONS,
    AccessTimes,
    DriverName,
    MountOptions,
    help_text,
    parse_options,
)
from tidefs.fs.errors import Code, TideError
from tidefs.fs.limits import GIB, MIB, SOFT_TIMEOUT_MS

NEVER = AccessTimes.NEVER


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], {}),
        (["hard"], {}),
        (["soft"], {"timeout_ms": SOFT_TIMEOUT_MS}),
        (["soft,timeout=1.5s"], {"timeout_ms": 1_500}),
        (["timeout=2min", "soft"], {"timeout_ms": 120_000}),
        (["cache=1GiB,read_ahead=4MiB"], {"cache_bytes": GIB, "read_ahead_bytes": 4 * MIB}),
        (["read_ahead=0"], {"read_ahead_bytes": 0}),
        (["ro,allow_other"], {"read_only": True, "allow_other": True}),
        (["rw, allow_self ,"], {"allow_other": False}),
        (["mode=uncached"], {"mode": MODES["uncached"]}),
        (["ro,ro"], {"read_only": True}),
        (["driver=pyfuse3"], {"driver": DriverName.PYFUSE3}),
        (["suid,allow_dev,noexec"], {"suid": True, "devices": True, "programs": False}),
        (["noatime,nodiratime"], {"access_times": NEVER, "directory_access_times": False}),
        (["atime,relatime"], {}),
    ],
)
def test_what_is_understood(texts, expected):
    assert parse_options(texts) == MountOptions()._replace(**expected)


def test_the_mode_may_be_given_twice_if_it_is_the_same():
    assert parse_options(["mode=uncached"], mode="uncached").mode is MODES["uncached"]
    assert parse_options([], mode="uncached").mode is MODES["uncached"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("frobnicate", ["frobnicate", "hard", "soft", "timeout", "cache"]),
        ("soft=5s", ["soft=5s", "written soft"]),
        ("timeout", ["timeout=VALUE"]),
        ("timeout=", ["timeout=VALUE"]),
        ("timeout=5s", ["soft"]),
        ("soft,timeout=soon", ["timeout=soon", "a duration"]),
        ("soft,timeout=0s", ["no time"]),
        ("hard,soft", ["hard,soft"]),
        ("hard,timeout=5s", ["hard,timeout"]),
        ("ro,rw", ["ro,rw"]),
        ("suid,nosuid", ["suid,nosuid"]),
        ("noatime,strictatime", ["noatime,strictatime"]),
        ("driver=fuse", ["driver=fuse", "kernel, pyfuse3"]),
        ("cache=1MiB", ["cache=1MiB", "64 MiB"]),
        ("cache=much", ["cache=much", "a size"]),
        ("mode=strange", ["mode=strange", "uncached", "nfs"]),
        ("soft,timeout=5s,timeout=6s", ["timeout", "5s"]),
    ],
)
def test_what_is_refused_in_words(text, said):
    with pytest.raises(TideError) as failed:
        parse_options([text])
    assert failed.value.code is Code.INVALID
    for word in said:
        assert word in str(failed.value)


def test_conflicting_modes():
    with pytest.raises(TideError):
        parse_options(["mode=nfs"], mode="uncached")


def test_every_option_has_its_line_of_help():
    assert len(help_text().splitlines()) == len(OPTIONS)
