"""What is installed is what stands in the tree: a package that is not listed would be missing."""

import shutil
import subprocess
import sys
import zipfile

from tidefs.tests.tidy.packages import ROOT
from tidefs.tests.tidy.test_source import product


def test_the_wheel_contains_every_module(tmp_path):
    copy = tmp_path / "tree"
    for name in [*product(), "setup.cfg", "pyproject.toml", "README.md"]:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", tmp_path, copy], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if name.endswith(".py")}
    assert inside == {f"tidefs/{name}" for name in product()}
