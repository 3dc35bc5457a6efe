"""TideFS: a distributed file system that a person mounts with one command."""

__version__ = "0.1.0"
