"""All litmus tests, in the order in which a newcomer should meet them. Pure."""

from . import of_bytes, of_names, of_races
from .model import Litmus

CATALOGUE: dict[str, Litmus] = {
    test.name: test for test in (*of_bytes.TESTS, *of_names.TESTS, *of_races.TESTS)
}
