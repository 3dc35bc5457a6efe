"""The scripts in tests/scripts/raft bring about the traces that stand in them.

``REWRITE_SCRIPTS=1 pytest tests/metaserver/raft/test_scripts.py`` writes the traces anew, to be
reviewed as a diff. See script.py for the language.
"""

import os

import pytest

from .script import rewritten, scripts


@pytest.mark.parametrize("path", scripts(), ids=lambda path: path.stem)
def test_script(path):
    before = path.read_text()
    after = rewritten(before)
    if os.environ.get("REWRITE_SCRIPTS"):
        path.write_text(after)
        return
    assert after == before, f"REWRITE_SCRIPTS=1 takes what it does now: {path}"
