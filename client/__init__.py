"""One mount: POSIX semantics over caches, and the servers as seen from here."""
