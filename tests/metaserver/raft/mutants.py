"""The core, broken on purpose: its sources with one place changed, imported beside the real one.

A mutant is a package of its own that shares with the real one what others know it by (the
contract),
so that nothing outside of it can tell the difference.
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from tidefs.metaserver import raft
from tidefs.metaserver.raft.contract import Begin, Core

SOURCES = Path(raft.__file__).parent
SHARED = ("contract",)


class Mutation(NamedTuple):
    """In ``module``, ``old`` (found exactly once) becomes ``new``."""

    module: str
    old: str
    new: str


def mutant(name: str, *mutations: Mutation) -> Callable[[Begin], Core]:
    """What makes broken members."""
    package = f"tidefs.metaserver.raft_{name.replace('-', '_')}"
    sources = {path.stem: path.read_text() for path in SOURCES.glob("*.py")}
    for module, old, new in mutations:
        found = sources[module].count(old)
        assert found == 1, f"{name} does not fit any more: {old!r} stands {found} times in {module}"
        sources[module] = sources[module].replace(old, new)
    made = ModuleType(package)
    made.__path__ = []
    sys.modules[package] = made
    for module in SHARED:
        sys.modules[f"{package}.{module}"] = sys.modules[f"{raft.__name__}.{module}"]
    finder = _Finder(package, sources)
    sys.meta_path.insert(0, finder)
    try:
        core = importlib.import_module(f"{package}.core")
    finally:
        sys.meta_path.remove(finder)
    small_batches(sys.modules[f"{package}.replication"])
    make: Callable[[Begin], Core] = core.Member
    return make


def small_batches(replication: Any) -> None:
    """Few records fit into an Append, so that many things come about with few records."""
    replication.LOG_BATCH_MAX_ENTRIES = 2
    replication.APPENDS_IN_FLIGHT_MAX = 3


class _Finder:
    """Finds the modules of one mutant, whose sources are here and in no file."""

    def __init__(self, package: str, sources: dict[str, str]) -> None:
        self._package, self._sources = package, sources

    def find_spec(self, name, path=None, target=None):
        package, _, module = name.rpartition(".")
        if package != self._package:
            return None
        return importlib.util.spec_from_loader(name, _Loader(self._sources[module], name))


class _Loader:
    def __init__(self, source: str, name: str) -> None:
        self._code = compile(source, f"<{name}>", "exec")

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(self._code, module.__dict__)
