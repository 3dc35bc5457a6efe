"""Which process runs which seed."""

from tidefs.tests.sim.campaign import _Runs


def drained(runs: _Runs, *kinds: int) -> dict[int, list[int]]:
    """Workers of these kinds take turns until nothing is left for any of them."""
    taken: dict[int, list[int]] = {kind: [] for kind in kinds}
    left = True
    while left:
        left = False
        for kind in kinds:
            seed = runs.next_for(kind)
            if seed is not None:
                taken[kind].append(seed)
                left = True
    return taken


def test_a_seed_that_is_run_twice_is_run_once_with_each_hash_seed():
    taken = drained(_Runs(range(1, 31), {1, 11, 21}), 0, 1)
    assert sorted(taken[0] + taken[1]) == sorted([*range(1, 31), 1, 11, 21])
    for seeds in taken.values():
        assert {1, 11, 21} <= set(seeds)
        assert seeds == sorted(seeds)


def test_one_process_runs_all_when_none_is_run_twice():
    assert drained(_Runs(range(5), set()), 0) == {0: [0, 1, 2, 3, 4]}
