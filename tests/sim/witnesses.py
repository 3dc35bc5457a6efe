"""Who works on the same files and names through several mounts in one run, and what is checked."""

from collections.abc import Iterator

from tidefs.client.modes import mode_named

from .attribute_witness import AttributeWitness
from .byte_objects import unit_by_unit
from .byte_witness import ByteWitness, SharedFile, shared_files
from .cluster import Cluster
from .history import History
from .linearizability import Operation
from .name_witness import NameWitness
from .options import Options
from .sharing import POWER_LOSSES
from .witness import Witness


def make_witnesses(cluster: Cluster, options: Options, history: History) -> Iterator[Witness]:
    """As the options say."""
    for number in range(options.name_witnesses):
        yield NameWitness(cluster, f"d{number}", number, history)
    for number in range(options.byte_witnesses):
        yield ByteWitness(cluster, f"b{number}", number, history, files_of(options))
    for number in range(options.attribute_witnesses):
        yield AttributeWitness(cluster, f"x{number}", number, history)


def files_of(options: Options) -> list[SharedFile]:
    """Files of which the bytes are witnessed.

    What is on chunks and was not synced may be lost with the power, after it was seen: then only
    what the metaservers keep is witnessed. And only in modes with promises a read(2) or write(2)
    of several blocks is to be seen as a whole: in the others each block is asked for, and sent, by
    itself.
    """
    return shared_files(
        whole=mode_named(options.mode).promises,
        on_chunks=POWER_LOSSES.isdisjoint(options.faults),
    )


def taken_apart(history: History, options: Options) -> list[Operation]:
    """All that was recorded, in pieces that are to be linearizable each."""
    units = {file.name: file.units for file in files_of(options) if file.in_parts}
    return list(unit_by_unit(history.operations(), lambda name: units.get(name, 0)))
