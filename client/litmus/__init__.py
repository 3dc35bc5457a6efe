"""Litmus tests: what each mode promises, tried on real mounts of a running cluster, and shown."""
