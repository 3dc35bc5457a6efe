"""Looking for the next request a moment longer."""

from tidefs.client.fuse.lingering import LINGER_S, VAIN_MAX, Lingering


class Device:
    """Each look takes 1 us; a request comes so many looks after the last one."""

    def __init__(self, after):
        self.after = after
        self.now_s = 0.0
        self.looks = 0
        self.since = 0

    def look(self):
        self.looks += 1
        self.now_s += 1e-6
        self.since += 1
        if self.since <= self.after:
            return 0
        self.since = 0
        return 7


def test_what_comes_soon_is_waited_for():
    device = Device(after=20)
    lingering = Lingering(lambda: device.now_s)
    assert [lingering.look(device.look) for _ in range(100)] == [7] * 100


def test_looking_in_vain_becomes_rare_and_comes_back():
    device = Device(after=1 << 60)
    lingering = Lingering(lambda: device.now_s)
    for _ in range(10_000):
        assert lingering.look(device.look) == 0
    attempts = device.looks / (LINGER_S * 1e6)
    assert attempts < 2 * 10_000 / VAIN_MAX + 20
    device.after = 20
    answers = [lingering.look(device.look) for _ in range(VAIN_MAX + 10)]
    assert answers[-9:] == [7] * 9


def test_a_cpu_that_others_want_is_left_to_them():
    """Each look takes longer than the patience, though a request is there then."""
    device = Device(after=0)
    now_s = 0.0

    def look():
        nonlocal now_s
        now_s += 1e-3
        return device.look()

    lingering = Lingering(lambda: now_s)
    answers = [lingering.look(look) for _ in range(1_000)]
    assert answers.count(7) < 40
