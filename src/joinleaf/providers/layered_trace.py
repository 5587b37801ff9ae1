"""A layer that only reports: every call of the seam, on logger ``joinleaf.trace``, level DEBUG.

The shortest full reading of what a layer owes to both sides. Whoever opens an endpoint through it
gets an endpoint of the layer's own, and the same one wherever the layer below would have given the
same: a c_leaf that has joined is still the endpoint that asked, a leg is a new one, and callbacks
name the endpoints the caller knows. ``winsock/layered.py`` is the same for the WSP* functions.
"""

from __future__ import annotations

import itertools
import logging
import reprlib
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from joinleaf.errors import SpiError
from joinleaf.spi.catalogue import Catalogue
from joinleaf.spi.codes import name_of
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import (
    DatagramEndpoint,
    Endpoint,
    EndpointEvent,
    Joined,
    Provider,
    Roles,
    Settings,
    TakenRequest,
)
from joinleaf.values import SessionAddress

__all__ = ["LOGGER", "TraceLayer", "TracedProvider", "add_tracer"]

LOGGER: Final = logging.getLogger("joinleaf.trace")

_LAYER: Final = "trace"
_NAME: Final = "joinleaf tracer"
_KEPT: Final = 64
_NUMBERS: Final = itertools.count(1)  # of the process: every opening composes the chain anew
_SHORT: Final = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60  # a message of a megabyte must not become a line of one
_SHORT.maxlist = _SHORT.maxtuple = 4


def add_tracer(catalogue: Catalogue, scheme: str) -> tuple[ProtocolInfo, ...]:
    """Slip the tracer under every program that uses a scheme: one chain for each of its entries.

    Args:
        catalogue: Usually ``default_catalogue()``.
        scheme: Whose entries are to be traced.

    Returns:
        The chains' entries; their names in the catalogue are ``trace <number of the base>``.

    Raises:
        CatalogueError: It is traced already.
        ProviderNotFoundError, ProviderBrokenError: As ``Catalogue.find``.
    """
    entries = _entries_of(catalogue, scheme)
    if _LAYER not in catalogue.names:
        catalogue.add_layer(_LAYER, replace(entries[0], name=_NAME), TraceLayer())
    layer = next(one for one in catalogue.protocols() if one.is_layered and one.name == _NAME)
    names = [f"{_LAYER} {base.catalog_entry_id}" for base in entries]
    chains = tuple(
        catalogue.add_chain(name, (layer.catalog_entry_id, base.catalog_entry_id))
        for name, base in zip(names, entries, strict=True)
    )
    catalogue.reorder(names)
    return chains


def _entries_of(catalogue: Catalogue, scheme: str) -> tuple[ProtocolInfo, ...]:
    ids = {(one.provider_id, one.name) for one in catalogue.find(scheme).protocols()}
    return tuple(
        one for one in catalogue.protocols() if one.is_base and (one.provider_id, one.name) in ids
    )


class TraceLayer:
    """What ``Catalogue.add_layer`` takes."""

    def wrap(self, lower: Provider) -> Provider:
        """The tracer over one provider."""
        return TracedProvider(lower)


class TracedProvider:
    """A provider whose endpoints report what is done with them.

    Args:
        lower: Does the work.

    Attributes:
        lower: The same.
    """

    def __init__(self, lower: Provider) -> None:
        self.lower = lower
        self.scheme = lower.scheme
        self._uppers: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        # A callback may name a leg before anybody holds it; its number must not change by then.
        self._recent: deque[Any] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lower, name)  # check_up, and whatever else a provider offers

    def protocols(self) -> Sequence[ProtocolInfo]:
        """Those of the layer below."""
        return self.lower.protocols()

    def select(self, address: SessionAddress) -> ProtocolInfo:
        """As below."""
        return self.lower.select(address)

    def open(
        self,
        info: ProtocolInfo,
        roles: Roles,
        settings: Settings | None = None,
        *,
        address: SessionAddress | None = None,
    ) -> Endpoint:
        """WSPSocket, reported."""
        given = settings if settings is not None else Settings()
        opened = report(
            self.scheme,
            "open",
            (info.name, roles),
            {},
            lambda: self.upper_of(self.lower.open(info, roles, given, address=address)),
        )
        endpoint: Endpoint = opened
        return endpoint

    def upper_of(self, lower: Endpoint) -> Any:
        """The one endpoint of this layer that stands for an endpoint of the layer below."""
        with self._lock:
            upper = self._uppers.get(id(lower))
            if upper is None:
                kind = _Datagrams if isinstance(lower, DatagramEndpoint) else _Traced
                upper = kind(self, lower, f"{self.scheme}#{next(_NUMBERS)}")
                self._uppers[id(lower)] = upper
                self._recent.append(upper)
            return upper


def report(
    who: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], call: Callable[[], Any]
) -> Any:
    """Make a call, and log it with what it came to and the milliseconds it took."""
    if not LOGGER.isEnabledFor(logging.DEBUG):
        return call()
    words = [_SHORT.repr(value) for value in args]
    words += [f"{key}={_SHORT.repr(value)}" for key, value in kwargs.items()]
    began, outcome = time.perf_counter_ns(), "?"
    try:
        result = call()
    except SpiError as error:
        outcome = f"{name_of(error.code)} {error.code}"
        raise
    except BaseException as error:
        outcome = type(error).__name__
        raise
    else:
        outcome = _SHORT.repr(result)
        return result
    finally:
        spent = (time.perf_counter_ns() - began) / 1e6
        LOGGER.debug("%s %s(%s) -> %s [%.3f ms]", who, name, ", ".join(words), outcome, spent)


class _Traced:
    """An endpoint of this layer; its methods are made below, from those of the seam."""

    def __init__(self, provider: TracedProvider, lower: Endpoint, name: str) -> None:
        self._provider = provider
        self.lower = lower
        self._name = name

    def __repr__(self) -> str:
        return self._name

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lower, name)

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        def call() -> Any:
            return self._raise(getattr(self.lower, name)(*args, **self._lowered(kwargs)))

        return report(self._name, name, args, kwargs, call)

    @staticmethod
    def _lowered(kwargs: dict[str, Any]) -> dict[str, Any]:
        if kwargs.get("to") is None:
            return kwargs
        return kwargs | {"to": [getattr(one, "lower", one) for one in kwargs["to"]]}

    def _raise(self, result: Any) -> Any:
        """A result of the layer below as one of this layer: only endpoints differ."""
        # Not isinstance(): it would read every property, and some raise in some states.
        if hasattr(type(result), "start_join_leaf"):
            return self._provider.upper_of(result)
        if isinstance(result, Joined):
            return replace(result, endpoint=self._provider.upper_of(result.endpoint))
        if isinstance(result, TakenRequest):
            answer = result.answer
            return TakenRequest(result.request, lambda verdict: self._raise(answer(verdict)))
        return result

    def subscribe(self, callback: Callable[[Any, EndpointEvent], None] | None) -> None:
        """Report every indication, and hand it on with the endpoint the caller knows."""
        provider = self._provider

        def indicate(lower: Endpoint, event: EndpointEvent) -> None:
            upper = provider.upper_of(lower)
            LOGGER.debug("%r <- %r", upper, event)
            assert callback is not None
            callback(upper, event)

        self.lower.subscribe(indicate if callback is not None else None)


class _Datagrams(_Traced):
    """The same of a connectionless endpoint, which can do more."""


def _method(name: str) -> Callable[..., Any]:
    def call(self: _Traced, *args: Any, **kwargs: Any) -> Any:
        return self._call(name, *args, **kwargs)

    call.__name__ = name
    return call


def _property(name: str) -> property:
    return property(lambda self: getattr(self.lower, name), doc=f"``{name}`` of the layer below.")


def _fill(kind: type[_Traced], protocol: type) -> None:
    """Give a class every member of a protocol that it has not written out itself."""
    for name, member in vars(protocol).items():
        if name.startswith("_") or name in vars(_Traced):
            continue
        # Members of the class, not __getattr__: that is where isinstance() may look (Python 3.12).
        setattr(kind, name, _property(name) if isinstance(member, property) else _method(name))


_fill(_Traced, Endpoint)
_fill(_Datagrams, DatagramEndpoint)
