"""What an operation does with an answer that the kernel does not want any more."""

from tidefs.client.fuse.kernel_operations import Operations
from tidefs.client.fuse.protocol.opcodes import Opcode
from tidefs.tests.mount.memory_file_system import MemoryFileSystem


def test_a_directory_that_was_opened_for_nobody_is_closed() -> None:
    file_system = MemoryFileSystem()
    operations = Operations(file_system)
    opened = file_system.opendir(1)
    operations.lost(operations.by_opcode[Opcode.OPENDIR], opened)
    assert not file_system.handles
