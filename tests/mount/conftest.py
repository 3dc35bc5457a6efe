"""Each test of a driver runs on both, and with answers that come at once and late."""

import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tidefs.client.options import DriverName
from tidefs.tests.mount.drivers import PYFUSE3_CANNOT, Mount, mounted
from tidefs.tests.mount.memory_file_system import MemoryFileSystem
from tidefs.tests.watchdog import fuse_mounts

ANSWER_S = 5


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*features): what pyfuse3 cannot serve")


@pytest.fixture(scope="session", autouse=True)
def no_mounts_of_killed_runs() -> None:
    """What was served by a test process that was killed is of no use to anybody."""
    for point, _ in fuse_mounts(Path(tempfile.gettempdir()).resolve()):
        # Asked from another process, in case that one who serves it hangs.
        asked = subprocess.run(
            ["timeout", "-s", "KILL", str(ANSWER_S), "stat", "-f", point],
            capture_output=True,
            text=True,
            check=False,
        )
        if "not connected" in asked.stderr:
            subprocess.run(["umount", "-l", point], capture_output=True, check=False)


@pytest.fixture(params=list(DriverName), ids=str)
def driver_name(request: pytest.FixtureRequest) -> DriverName:
    name: DriverName = request.param
    marker = request.node.get_closest_marker("needs")
    if marker is not None and name is DriverName.PYFUSE3:
        pytest.skip("; ".join(PYFUSE3_CANNOT[feature] for feature in marker.args))
    return name


@pytest.fixture(params=[False, True], ids=["at-once", "late"])
async def mount(
    request: pytest.FixtureRequest, driver_name: DriverName, tmp_path: Path
) -> AsyncIterator[Mount]:
    path = tmp_path / "mnt"
    async with mounted(path, MemoryFileSystem(), driver_name, late=request.param) as mount:
        yield mount
