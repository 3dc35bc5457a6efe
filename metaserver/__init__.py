"""Who is where: the replicated name space, sessions, promises, and the places of chunks."""
