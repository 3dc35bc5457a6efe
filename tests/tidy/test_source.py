"""The rules of the house that no other tool keeps, checked on the source itself."""

import ast
import configparser
import re
import sys
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

from tidefs.tests.tidy.packages import ROOT, packages

LINES_WANTED_MAX = 500
TEST_LINES_WANTED_MAX = 700
LINES_MAX = 900
LONG_FOR_A_REASON = {
    "fs/messages/meta.py": "one conversation, read as one page",
}
"""Files over LINES_WANTED_MAX lines that are one thing and no two, with the reason."""

GONE_FROM_PYTHON = {"chunk"}
"""Removed from the standard library by PEP 594: nobody imports that one any more."""

NOT_OURS = {"build", "dist", "mnt", "tide"}

REAL_PORTS = {"RealClock", "RealRandomness", "RealDisk", "RealNetwork"}
BUILDERS_OF_PORTS = ("*/server.py", "client/mount.py", "deploy/*", "fs/ports/*")

BANNED_CALLS = {
    "time.sleep": "wait for what you wait for: an event, a deadline of trio, a process",
    "print": "people are spoken to through click, logs through fs.log",
    "datetime.now": "the time comes from the clock port",
    "datetime.datetime.now": "the time comes from the clock port",
}


@cache
def modules(below: str = "") -> list[str]:
    """Every Python file of ours below a folder, as a path relative to the root of the tree."""
    found = []
    for path in sorted((ROOT / below).rglob("*.py")):
        parts = path.relative_to(ROOT).parts
        if parts[0] not in NOT_OURS and not any(part.startswith(".") for part in parts):
            found.append("/".join(parts))
    return found


def product() -> list[str]:
    """The files that are installed."""
    return [name for name in modules() if not name.startswith("tests/")]


@cache
def tree(name: str) -> ast.Module:
    """The file, parsed."""
    return ast.parse((ROOT / name).read_text(), name)


def dotted(node: ast.expr) -> str:
    """``a.b.c`` for an expression of that form, else the empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (front := dotted(node.value)):
        return f"{front}.{node.attr}"
    return ""


def calls(name: str) -> list[tuple[int, str]]:
    """Line and dotted name of every call in a file."""
    nodes = (node for node in ast.walk(tree(name)) if isinstance(node, ast.Call))
    return [(node.lineno, dotted(node.func)) for node in nodes]


def imported(name: str) -> list[tuple[int, str]]:
    """Line and module of every absolute import in a file."""
    found = []
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.append((node.lineno, node.module or ""))
    return found


def module_name(name: str) -> str:
    """``tidefs.fs.codec`` for ``fs/codec.py``."""
    return "tidefs." + name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def pure_contract() -> tuple[list[str], list[str]]:
    """Patterns of pure modules, and what they may not import, from setup.cfg."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    contract = config["importlinter:contract:pure"]
    return contract["source_modules"].split(), contract["forbidden_modules"].split()


def test_every_package_is_listed_in_setup_cfg():
    found = {module_name(name) for name in product() if name.endswith("/__init__.py")}
    assert set(packages()) == found | {"tidefs"}


def test_every_module_stands_in_a_package():
    bare = [name for name in product() if not (ROOT / name).with_name("__init__.py").exists()]
    assert not bare, "without an __init__.py beside it a module is missing from the wheel"


def long_files() -> dict[str, int]:
    """Files with more lines than is wanted, and how many."""
    found = {}
    for name in modules():
        lines = (ROOT / name).read_text().count("\n")
        if lines > (TEST_LINES_WANTED_MAX if name.startswith("tests/") else LINES_WANTED_MAX):
            found[name] = lines
    return found


def test_length():
    found = long_files()
    assert set(found) <= set(LONG_FOR_A_REASON), f"split it, or give the reason: {found}"
    assert set(LONG_FOR_A_REASON) <= set(found), "no longer long: take it from the list"
    assert all(lines <= LINES_MAX for lines in found.values()), f"split it: {found}"


def test_pure_modules_import_nothing_impure():
    patterns, forbidden = pure_contract()
    wrong = [
        f"{name}:{line} imports {what}"
        for name in product()
        if any(fnmatch(module_name(name), pattern) for pattern in patterns)
        for line, what in imported(name)
        if what.split(".")[0] in forbidden
    ]
    assert not wrong


def test_only_the_drivers_know_pyfuse3():
    wrong = [
        f"{name}:{line}"
        for name in product()
        if not name.startswith("client/fuse/")
        for line, what in imported(name)
        if what.split(".")[0] == "pyfuse3"
    ]
    assert not wrong


def test_the_product_imports_itself_relatively():
    wrong = [
        f"{name}:{line} imports {what}"
        for name in product()
        for line, what in imported(name)
        if what.split(".")[0] == "tidefs"
    ]
    assert not wrong


def test_banned_calls():
    wrong = [
        f"{name}:{line} calls {what}: {BANNED_CALLS[what]}"
        for name in product()
        for line, what in calls(name)
        if what in BANNED_CALLS
    ]
    assert not wrong


def test_tests_do_not_sleep():
    wrong = [
        f"{name}:{line}"
        for name in modules("tests")
        for line, what in calls(name)
        if what == "time.sleep"
    ]
    assert not wrong, "wait for a condition instead"


def test_no_bare_except_and_no_assert_false():
    wrong = []
    for name in product():
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                wrong.append(f"{name}:{node.lineno}: name what is caught")
            if isinstance(node, ast.Assert) and is_false(node.test):
                wrong.append(f"{name}:{node.lineno}: raise AssertionError, which -O keeps")
    assert not wrong


def is_false(node: ast.expr) -> bool:
    """Whether it is a constant that is false."""
    return isinstance(node, ast.Constant) and not node.value


def test_the_first_line_says_the_files_duty():
    wrong = [name for name in modules() if not ast.get_docstring(tree(name))]
    assert not wrong, "a module begins with a docstring"


def test_nothing_is_left_for_later():
    marks = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
    wrong = [
        f"{name}:{number}"
        for name in modules()
        for number, text in enumerate((ROOT / name).read_text().splitlines(), 1)
        if marks.search(text)
    ]
    assert not wrong


def test_no_module_is_named_like_one_of_python():
    wrong = [
        name
        for name in product()
        if not (stem := Path(name).stem).startswith("__")
        and stem in sys.stdlib_module_names - GONE_FROM_PYTHON
    ]
    assert not wrong


def test_only_those_who_start_something_build_real_ports():
    wrong = [
        f"{name}:{line} builds {what}"
        for name in product()
        if not any(fnmatch(name, pattern) for pattern in BUILDERS_OF_PORTS)
        for line, what in calls(name)
        if what.split(".")[-1] in REAL_PORTS
    ]
    assert not wrong
