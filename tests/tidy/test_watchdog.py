"""The last resort of the watchdog: who does not even clear up is ended, by name."""

import json
import signal
import subprocess
import sys

WATCH_SHORTLY = """
import sys
from tidefs.tests import watchdog
watchdog.CUT_AFTER_S = watchdog.CLEAR_MAX_S = 0.1
watchdog.Watchdog(int(sys.argv[1])).run()
"""


def test_who_does_not_end_is_ended(tmp_path):
    hanging = subprocess.Popen(["sleep", "1000"])
    try:
        told = [
            {"folder": str(tmp_path)},
            {"test": "harmless", "limit_s": 1_000},
            {"test": ""},
            {"test": "that_one", "limit_s": 0.1},
        ]
        with subprocess.Popen(
            [sys.executable, "-c", WATCH_SHORTLY, str(hanging.pid)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as dog:
            dog.stdin.write(b"".join(json.dumps(one).encode() + b"\n" for one in told))
            dog.stdin.flush()
            assert hanging.wait() == -signal.SIGABRT
            said = dog.stderr.read().decode()
        assert "watchdog: that_one (0 s) takes too long" in said
        assert "that_one (0 s) does not end" in said
        assert "harmless" not in said
    finally:
        hanging.kill()
        hanging.wait()
