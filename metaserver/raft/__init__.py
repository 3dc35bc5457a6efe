"""Consensus, sans-IO: tick, step and propose in; Ready out (persist, then send, then apply)."""
