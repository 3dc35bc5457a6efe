"""The kernel's FUSE protocol, pure: what a message is, not how it travels.

    opcodes       numbers of requests and notifications, flags
    structures    the layouts in <linux/fuse.h>, each compiled once
    negotiation   INIT: what both sides can do
    requests      bytes from the kernel to values; MalformedRequestError
    replies       values to bytes for the kernel
    listing       readdir's buffers
    notices       what the kernel is told without being asked

The names are those of <linux/fuse.h>, version 7.45, without their prefix. All numbers are in the
byte order of the machine. Nothing here has a state: there is one reader, and each message is
complete in itself.
"""
