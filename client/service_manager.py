"""What a service manager is told, when there is one that listens: sd_notify(3)'s protocol."""

import os
import socket

SOCKET = "NOTIFY_SOCKET"


def tell(*lines: str) -> None:
    """Send such lines as ``READY=1`` or ``STATUS=...``. Nothing happens where nobody listens."""
    address = os.environ.get(SOCKET, "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.sendto("\n".join(lines).encode(), address.replace("@", "\0", 1))
        except OSError:
            return  # it is gone: there is nobody to tell
