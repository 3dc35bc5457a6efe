"""The bytes: chunk files, their checksums, and the chain that replicates them."""
