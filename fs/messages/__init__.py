"""What goes over the wire, one module a conversation. A message is a fixed-length array."""
