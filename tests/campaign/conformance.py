"""Campaigns about POSIX: pjdfstest, and directories of a million entries.

pjdfstest (github.com/pjd/pjdfstest) is in no distribution: build it in a checkout of its own
(autoreconf -ifs && ./configure && make pjdfstest) and name the checkout with --pjdfstest. It needs
perl's prove, and root.
"""

import argparse
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from registry import campaign
from stage import CampaignError, Stage, say, stage

COPIES = (1, 3)
SUITE_MAX_S = 3 * 3600.0
FILE_LINE = re.compile(r"^# files=(\d+) tests=(\d+) failed=(\d+) skipped=(\d+) todo=(\d+)$")

# What prove prints at the end has no count of skipped tests: its parser has.
COUNT = r"""
use TAP::Harness;
my $harness = TAP::Harness->new({ verbosity => -3, exec => ["sh"], merge => 1 });
my $all = $harness->runtests(sort @ARGV);
for my $name ($all->descriptions) {
    my ($parser) = $all->parsers($name);
    print "failed: $name: @{[$parser->failed]}\n" if $parser->has_problems;
    $skipped += $parser->skipped + (defined $parser->skip_all ? 1 : 0);
    $todo += $parser->todo;
}
printf "# files=%d tests=%d failed=%d skipped=%d todo=%d\n",
    scalar(@ARGV), $all->total, scalar($all->failed) + scalar($all->parse_errors),
    $skipped, $todo;
"""


class Total(NamedTuple):
    """What a run of pjdfstest came to."""

    files: int
    tests: int
    failed: int
    skipped: int
    todo: int


@campaign
def pjdfstest(options: argparse.Namespace) -> None:
    """All of pjdfstest as root on a default mount, on 1 and on 3 copies."""
    checkout = options.pjdfstest
    if checkout is None or not (checkout / "pjdfstest").is_file():
        raise CampaignError("name a checkout of pjdfstest, built, with --pjdfstest")
    for copies in options.copies or COPIES:
        with stage(3, copies) as cluster:
            total = _run_suite(checkout.resolve(), cluster.mount())
            cluster.check_status()
        say(
            f"pjdfstest, {copies} copies: {total.files} files, {total.tests} tests,"
            f" {total.failed} failed, {total.skipped} skipped, {total.todo} todo"
        )


def _run_suite(checkout: Path, point: Path) -> Total:
    """In a folder of the mount to which all users get."""
    for folder in (point.parent, point):
        folder.chmod(0o755)
    here = point / "pjdfstest"
    here.mkdir()
    scripts = sorted(str(path) for path in (checkout / "tests").glob("*/*.t"))
    done = subprocess.run(
        ["perl", "-e", COUNT, *scripts],
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=SUITE_MAX_S,
        check=False,
    )
    found = FILE_LINE.match(done.stdout.rstrip("\n").rpartition("\n")[2])
    if done.returncode or found is None:
        raise CampaignError(f"pjdfstest ended with {done.returncode}:\n{done.stdout[-3000:]}")
    total = Total(*map(int, found.groups()))
    if total.failed or total.files == 0 or total.tests == 0:
        raise CampaignError(f"pjdfstest: {total}\n{done.stdout[-5000:]}")
    if left := os.listdir(here):
        raise CampaignError(f"pjdfstest left {left}")
    return total


CLIENT_MAX_BYTES = 700 * 1024 * 1024


@campaign
def million(options: argparse.Namespace) -> None:
    """A directory of a million entries: listed while it changes, in bounded memory, and removed."""
    with stage(1, 1) as cluster:
        here, there = cluster.mount("here"), cluster.mount("there")
        _fill(here / "large", options.entries)
        say(f"{options.entries} files made")
        before = _memory_bytes(cluster, there)
        _list_while_it_changes(here / "large", there / "large", options.entries)
        _seek(there / "large")
        grown = _memory_bytes(cluster, there) - before
        if grown > CLIENT_MAX_BYTES:
            raise CampaignError(f"the client that lists has grown by {grown >> 20} MiB")
        say(f"the client that lists has grown by {grown >> 20} MiB")
        shutil.rmtree(here / "large")
        if os.listdir(there):
            raise CampaignError(f"{os.listdir(there)} is left of it")
        say("removed while it was listed")
        cluster.check_status()


def _fill(folder: Path, entries: int) -> None:
    """Hard links cost the least; a new file every so often, for a file has so many names."""
    folder.mkdir()
    for at in range(entries):
        name = folder / f"{at:07}"
        if at % 10_000 == 0:
            first = name
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
        else:
            os.link(first, name)


def _list_while_it_changes(here: Path, there: Path, entries: int) -> None:
    """Every tenth is removed elsewhere while it is listed, and others come: names that stay are
    listed once, others at most once."""
    seen = bytearray(entries)
    new: set[str] = set()
    with os.scandir(there) as listing:
        for count, entry in enumerate(listing):
            if entry.name.startswith("new"):
                _once(entry.name not in new, entry.name)
                new.add(entry.name)
            else:
                _once(not seen[int(entry.name)], entry.name)
                seen[int(entry.name)] = 1
            if count % 1_000 == 0 and count < entries:
                (here / f"new{count}").touch()
                going = (count * 7919) % entries // 10 * 10
                (here / f"{going:07}").unlink(missing_ok=True)
    missing = [at for at in range(entries) if at % 10 and not seen[at]]
    if missing:
        raise CampaignError(f"{len(missing)} names that stay were not listed, {missing[:5]} too")
    say(f"listed while it changed: {sum(seen)} and {len(new)} new ones, none twice")


def _once(is_new: bool, name: str) -> None:
    if not is_new:
        raise CampaignError(f"{name} was listed twice")


SEEK = r"""
use strict;
opendir(my $listing, $ARGV[0]) or die;
my (@places, @names);
while (defined(my $name = readdir $listing)) {
    push @names, $name;
    push @places, telldir $listing;
}
for (my $at = 0; $at < @names - 1; $at += int(@names / 50) + 1) {
    seekdir $listing, $places[$at];
    my $name = readdir $listing;
    die "behind $names[$at] comes $name, not $names[$at + 1]" if $name ne $names[$at + 1];
}
"""


def _seek(folder: Path) -> None:
    done = subprocess.run(
        ["perl", "-e", SEEK, folder], capture_output=True, text=True, timeout=3600, check=False
    )
    if done.returncode:
        raise CampaignError(f"seekdir: {done.stderr}")
    say("telldir and seekdir come back to the same places")


def _memory_bytes(cluster: Stage, point: Path) -> int:
    status = Path(f"/proc/{cluster.client_pid(point)}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024
