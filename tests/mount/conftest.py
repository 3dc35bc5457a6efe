"""Each test of a driver runs on both, and with answers that come at once and late."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tidefs.client.options import DriverName
from tidefs.tests.mount.drivers import PYFUSE3_CANNOT, Mount, mounted
from tidefs.tests.mount.memory_file_system import MemoryFileSystem


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*features): what pyfuse3 cannot serve")


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
