"""One file per operation of the name space: its check and its apply."""
