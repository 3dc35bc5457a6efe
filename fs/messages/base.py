"""What a message is: a frozen record that travels as a msgpack array of its fields, in order.

A request names its method number and, by its type parameter, the type of its reply::

    @method(0x0101)
    class Lookup(Request["Entry"]): ...

so that ``await peer.call(Lookup(...))`` is known to the type checker to give an ``Entry``.
"""

import sys
from collections.abc import Callable
from typing import Any, ClassVar, ForwardRef, Generic, TypeVar, dataclass_transform, get_args

import msgspec


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class _Frozen(msgspec.StructMeta):
    """Tells the type checker what msgspec does anyway: subclasses of a frozen record are frozen."""


class Message(
    msgspec.Struct, metaclass=_Frozen, array_like=True, frozen=True, forbid_unknown_fields=True
):
    """A value that goes over the wire or into the log."""


R = TypeVar("R", bound=Message)
Q = TypeVar("Q", bound="Request[Any]")

METHODS: dict[int, type["Request[Any]"]] = {}
"""Every request of every conversation, by method number."""


class Request(Message, Generic[R]):
    """A message that asks for a reply of type R."""

    METHOD: ClassVar[int]


class Done(Message):
    """The reply that says nothing but that it was done."""


class Notice(Request[Done]):
    """A request that is only told: no reply, no error, no deadline, and it may be lost.

    See ``Peer.tell``. Who handles one may raise what it likes: it is logged.
    """


def method(number: int) -> Callable[[type[Q]], type[Q]]:
    """Give a request class its number, for ever."""

    def register(cls: type[Q]) -> type[Q]:
        assert number not in METHODS, f"method {number:#06x} is taken by {METHODS[number].__name__}"
        cls.METHOD = number
        METHODS[number] = cls
        return cls

    return register


def reply_type(request: type[Request[R]]) -> type[R]:
    """The class of the reply to ``request``, from its type parameter."""
    found = _REPLIES.get(request)
    if found is None:
        (argument,) = get_args(request.__orig_bases__[0])  # type: ignore[attr-defined]
        if isinstance(argument, ForwardRef):
            argument = getattr(sys.modules[request.__module__], argument.__forward_arg__)
        _REPLIES[request] = found = argument
    return found


_REPLIES: dict[type[Request[Any]], type[Any]] = {}
