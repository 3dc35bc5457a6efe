"""Configuration files: each mistake is named with its file and key."""

import pytest
from tidefs.fs.config import Config, Duration, Port, Size, load, parse
from tidefs.fs.errors import Code, TideError


class Listen(Config):
    port: Port


class Example(Config):
    name: str
    cache: Size = Size(5)
    wait: Duration = Duration(1000)
    listen: tuple[Listen, ...] = ()
    verbose: bool = False


def test_sizes_and_durations_as_people_write_them(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('name = "x"\ncache = "64 MiB"\nwait = "1.5s"\n[[listen]]\nport = 80\n')
    found = load(path, Example)
    assert (found.cache, found.wait, found.listen[0].port) == (64 << 20, 1500, 80)
    assert parse('name = "x"\ncache = 4096', "a", Example).cache == 4096


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the key 'name' is missing"),
        ('name = "x"\nchache = 1', "there is no key 'chache' (there are: name, cache, wait,"),
        ("name = 5", "the key 'name': expected text in quotes, got a whole number"),
        ('name = "x"\nverbose = "yes"', "the key 'verbose': expected true or false, got text"),
        ('name = "x"\ncache = "64 MB!"', "the key 'cache': '64 MB!' is not a size, such as 64 MiB"),
        ('name = "x"\ncache = -1', "the key 'cache': '-1' is not a size"),
        ('name = "x"\nwait = 5', "the key 'wait': '5' is not a duration, such as 250ms"),
        ('name = "x"\n[[listen]]\nport = 70000', "the key 'listen[0].port': expected a whole"),
        ('name = "x"\n[[listen]]\n', "the key 'listen[0].port' is missing"),
        ('name = "x"\n[[listen]]\nport = 1\nhost = 2', "there is no key 'listen[0].host'"),
        ("name = ", "is not TOML"),
    ],
)
def test_mistakes_are_named(text, words):
    with pytest.raises(TideError) as caught:
        parse(text, "some.toml", Example)
    assert caught.value.code is Code.BAD_CONFIG
    assert caught.value.detail.startswith("some.toml: ")
    assert words in caught.value.detail


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(TideError, match=r"nothing\.toml: cannot be read \(No such file"):
        load(tmp_path / "nothing.toml", Example)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(TideError, match="binary: is not UTF-8 text"):
        load(tmp_path / "binary", Example)
