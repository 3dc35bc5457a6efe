"""How TideFS is run: the `tidefs` command and the one-machine cluster."""
