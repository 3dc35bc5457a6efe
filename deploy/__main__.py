"""``python -m tidefs.deploy``: the same as ``tidefs``, with this interpreter."""

from .cli import main

main()
