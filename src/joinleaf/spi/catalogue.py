"""The catalogue: which providers there are, in which order, and what each offers.

Three kinds of item stand in it, as in Winsock's own:

* a **provider**, found through the entry-point group ``joinleaf.providers`` or added by hand. It
  is loaded when its scheme is first asked for, so a broken one harms nobody else;
* a **layer**, which can do nothing but wrap a provider (its entry has an empty chain);
* a **chain**: layers over one base entry. Where it stands before the base's provider, it is what
  people get who ask for that scheme: this is how a layer is slipped under running programs.

Entry ids are ``1000 * number of the item + index``, with numbers that are never used twice: they
depend neither on the order of loading nor on what else is added or removed later.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Any, Final, Protocol

from joinleaf.errors import CatalogueError, ProviderBrokenError, ProviderNotFoundError
from joinleaf.spi.constants import MAX_PROTOCOL_CHAIN, WSAPROTOCOL_LEN
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import Provider
from joinleaf.values import SessionAddress

__all__ = ["ENTRY_POINT_GROUP", "Catalogue", "LayeredProvider", "default_catalogue"]

ENTRY_POINT_GROUP: Final = "joinleaf.providers"
"""Entry points are named like the scheme; each yields a callable that returns a ``Provider``."""

_OWN_DISTRIBUTION: Final = "joinleaf"
_IDS_PER_ITEM: Final = 1000  # A provider with more entries than that is a defect, not a need.
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")
_REMOVE_HINT: Final = "Repair or uninstall it, or use another scheme"


class LayeredProvider(Protocol):
    """A layer: makes a provider out of the one below it."""

    def wrap(self, lower: Provider) -> Provider:
        """The layer over ``lower``, which it calls to get anything done."""
        ...


@dataclass(frozen=True, slots=True)
class _Source:
    """A provider: ``make`` gives it, ``origin`` says who is to blame if it does not."""

    name: str
    number: int
    make: Callable[[], object]
    origin: str


@dataclass(frozen=True, slots=True)
class _Layer:
    name: str
    number: int
    info: ProtocolInfo
    layer: LayeredProvider


@dataclass(frozen=True, slots=True)
class _Chain:
    name: str
    number: int
    ids: tuple[int, ...]


_Item = _Source | _Layer | _Chain


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What loading came to: a provider with its entries, or the reason why there is none."""

    provider: Provider | None = None
    entries: tuple[ProtocolInfo, ...] = ()
    failure: str = ""
    cause: BaseException | None = None


@dataclass(slots=True, eq=False)
class Catalogue:
    """An ordered set of providers, layers and chains. Starts empty; ``discover`` fills one.

    Safe to use from several threads without a lock: the order is a tuple that is replaced
    whole, and of two threads that load one provider at once both get the first one's result.
    """

    _items: tuple[_Item, ...] = ()
    _next_number: int = 1
    _loaded: dict[int, _Loaded] = field(default_factory=dict)
    _rejected: tuple[tuple[str, str], ...] = ()  # origin and reason, of what never got in

    @classmethod
    def discover(cls) -> Catalogue:
        """Every installed provider: joinleaf's own first, then by name of distribution."""
        catalogue = cls()
        for distribution, points in sorted(_distributions(), key=_own_first):
            origin = f"distribution {distribution!r}"
            if isinstance(points, str):
                catalogue._reject(origin, points)
                continue
            for point in points:
                catalogue._register(point, origin)
        return catalogue

    def _register(self, point: metadata.EntryPoint, origin: str) -> None:
        if not _SCHEME.fullmatch(point.name):
            self._reject(origin, f"{point.name!r} cannot be the scheme of an address")
        elif (holder := self._find_item(point.name)) is not None:
            # First come, first served: a plug-in must not take over another's scheme unseen.
            taken_by = holder.origin if isinstance(holder, _Source) else holder.name
            self._reject(origin, f"scheme {point.name!r} already belongs to {taken_by}")
        else:
            self._append(_Source(point.name, self._take_number(), _maker(point), origin))

    # --- asking ---------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all items, in order: schemes of providers, names of layers and chains."""
        return tuple(item.name for item in self._items)

    @property
    def schemes(self) -> tuple[str, ...]:
        """Schemes of all providers, in order, whether they can be loaded or not."""
        return tuple(item.name for item in self._items if isinstance(item, _Source))

    def find(self, scheme: str) -> Provider:
        """The provider, or the chain over it that stands before it.

        Raises:
            ProviderNotFoundError: Nobody serves this scheme.
            ProviderBrokenError: Somebody does, but could not be loaded; says who and why.
        """
        for item in self._items:
            if isinstance(item, _Source) and item.name == scheme:
                return self._load(item)[0]
            if isinstance(item, _Chain) and self._source_of(item.ids[-1]).name == scheme:
                return self._compose(item)
        known = ", ".join(f"{name}://" for name in self.schemes) or "none"
        raise ProviderNotFoundError(f"no provider for {scheme}://", hint=f"Known schemes: {known}")

    def provider_for(self, address: SessionAddress | str) -> Provider:
        """The provider of a session address. Raises like ``find`` and ``SessionAddress.parse``."""
        return self.find(SessionAddress.parse(address).scheme)

    def protocols(self) -> tuple[ProtocolInfo, ...]:
        """Every entry in order, layers included; those of broken providers are left out.

        Loads every provider. ``broken`` says what is missing, and why.
        """
        return tuple(info for item in self._items for info in self._entries_if_sound(item))

    def broken(self) -> tuple[ProviderBrokenError, ...]:
        """What could not be registered or loaded, one error each. Loads every provider."""
        errors = [_broken(origin, reason) for origin, reason in self._rejected]
        for item in self._items:
            try:
                self._entries(item)
            except ProviderBrokenError as error:
                errors.append(error)
        return tuple(errors)

    def entry(self, catalog_entry_id: int) -> ProtocolInfo:
        """One entry by its id. Raises CatalogueError where there is none."""
        for info in self._entries(self._item_of(catalog_entry_id)):
            if info.catalog_entry_id == catalog_entry_id:
                return info
        raise _no_entry(catalog_entry_id)

    def open_chain(self, catalog_entry_id: int) -> Provider:
        """The provider behind an entry: of a chain, its layers around the base's provider.

        Open endpoints on it with the entry of the chain's base, ``entry(info.chain[-1])``.

        Raises:
            CatalogueError: No such entry, or a layer, which is not usable by itself.
            ProviderBrokenError: A part could not be loaded, or a layer failed to wrap.
        """
        item = self._item_of(catalog_entry_id)
        if isinstance(item, _Layer):
            raise CatalogueError(
                f"entry {catalog_entry_id} is the layer {item.name!r}",
                hint="Add a chain that ends in a base entry, and open that",
            )
        return self._load(item)[0] if isinstance(item, _Source) else self._compose(item)

    # --- changing -------------------------------------------------------------------------

    def add(self, provider: Provider) -> tuple[ProtocolInfo, ...]:
        """Add a provider at the end, under its own scheme; gives its entries with their ids.

        Raises:
            ProviderBrokenError: It is none, or has no usable scheme or entries.
            CatalogueError: The scheme is taken.
        """
        origin = f"{type(provider).__module__}.{type(provider).__qualname__}"
        scheme = getattr(provider, "scheme", None)
        if not isinstance(scheme, str) or not _SCHEME.fullmatch(scheme):
            raise _broken(origin, f"{scheme!r} cannot be the scheme of an address")
        source = _Source(scheme, self._take_number(), lambda: provider, origin)
        self._append(source)
        try:
            return self._load(source)[1]
        except ProviderBrokenError:
            self._items = tuple(item for item in self._items if item is not source)
            raise

    def add_layer(self, name: str, info: ProtocolInfo, layer: LayeredProvider) -> ProtocolInfo:
        """Add a layer at the end; gives its entry. CatalogueError where the name is taken."""
        number = self._take_number()
        entry = replace(info, chain=(), catalog_entry_id=number * _IDS_PER_ITEM)
        self._append(_Layer(name, number, entry, layer))
        return entry

    def add_chain(self, name: str, ids: Sequence[int], *, first: bool = False) -> ProtocolInfo:
        """Add a chain: entry ids of layers from the top down, and of one base last.

        Args:
            name: Its name in the catalogue.
            ids: Two to seven entry ids.
            first: Put it before everything else, so that it is found instead of its base.

        Raises:
            CatalogueError: An id does not exist or stands in the wrong place, the number of ids
                is wrong, or the name is taken.
            ProviderBrokenError: The base could not be loaded.
        """
        chain = _Chain(name, self._take_number(), tuple(ids))
        self._check_chain(chain)
        (info,) = self._entries(chain)
        self._append(chain)
        if first:
            self.reorder([name])
        return info

    def _check_chain(self, chain: _Chain) -> None:
        if not 2 <= len(chain.ids) <= MAX_PROTOCOL_CHAIN:
            raise CatalogueError(
                f"chain {chain.name!r} has {len(chain.ids)} entries",
                hint=f"Give 2 to {MAX_PROTOCOL_CHAIN}, the base last",
            )
        for position, entry_id in enumerate(chain.ids, 1):
            wanted = _Source if position == len(chain.ids) else _Layer
            if not isinstance(self._item_of(entry_id), wanted):
                raise CatalogueError(
                    f"chain {chain.name!r}: entry {entry_id} cannot stand at place {position}",
                    hint="Give layers from the top down, then one base entry",
                )

    def remove(self, name: str) -> None:
        """Take an item out by name. What was opened through it lives on.

        Raises:
            CatalogueError: There is none of that name, or a chain still needs it.
        """
        gone = self._find_item(name)
        if gone is None:
            raise _no_item(name, self.names)
        for item in self._items:
            if isinstance(item, _Chain) and any(_number(part) == gone.number for part in item.ids):
                raise CatalogueError(
                    f"{name!r} is part of the chain {item.name!r}",
                    hint="Remove that chain first",
                )
        self._items = tuple(item for item in self._items if item is not gone)
        self._loaded.pop(gone.number, None)

    def reorder(self, names: Iterable[str]) -> None:
        """Put these items first, in this order; the others follow as they were.

        Raises:
            CatalogueError: A name is unknown; nothing has changed.
        """
        front: list[_Item] = []
        for name in dict.fromkeys(names):
            if (item := self._find_item(name)) is None:
                raise _no_item(name, self.names)
            front.append(item)
        self._items = (*front, *(item for item in self._items if item not in front))

    # --- items and loading ----------------------------------------------------------------

    def _append(self, item: _Item) -> None:
        if self._find_item(item.name) is not None:
            raise CatalogueError(
                f"{item.name!r} is in the catalogue already", hint="Remove that one first"
            )
        self._items = (*self._items, item)

    def _take_number(self) -> int:
        number = self._next_number
        self._next_number += 1
        return number

    def _reject(self, origin: str, reason: str) -> None:
        self._rejected = (*self._rejected, (origin, reason))

    def _find_item(self, name: str) -> _Item | None:
        return next((item for item in self._items if item.name == name), None)

    def _item_of(self, entry_id: int) -> _Item:
        for item in self._items:
            if item.number == _number(entry_id):
                return item
        raise _no_entry(entry_id)

    def _source_of(self, entry_id: int) -> _Source:
        item = self._item_of(entry_id)
        assert isinstance(item, _Source), item  # add_chain lets nothing else be last
        return item

    def _load(self, source: _Source) -> tuple[Provider, tuple[ProtocolInfo, ...]]:
        loaded = self._loaded.get(source.number)
        if loaded is None:
            loaded = self._loaded.setdefault(source.number, _try_to_load(source))
        if loaded.provider is None:
            raise _broken(source.origin, loaded.failure, source.name) from loaded.cause
        return loaded.provider, loaded.entries

    def _entries(self, item: _Item) -> tuple[ProtocolInfo, ...]:
        if isinstance(item, _Source):
            return self._load(item)[1]
        if isinstance(item, _Layer):
            return (item.info,)
        base = self.entry(item.ids[-1])
        # A name has room for 255 UTF-16 units; a character takes two at most.
        name = f"{item.name} over [{base.name}]"[: WSAPROTOCOL_LEN // 2]
        entry_id = item.number * _IDS_PER_ITEM
        return (replace(base, name=name, chain=item.ids, catalog_entry_id=entry_id),)

    def _entries_if_sound(self, item: _Item) -> tuple[ProtocolInfo, ...]:
        try:
            return self._entries(item)
        except ProviderBrokenError:
            return ()

    def _compose(self, chain: _Chain) -> Provider:
        provider = self._load(self._source_of(chain.ids[-1]))[0]
        for entry_id in reversed(chain.ids[:-1]):
            item = self._item_of(entry_id)
            assert isinstance(item, _Layer), item  # add_chain lets nothing else in
            try:
                provider = item.layer.wrap(provider)
            except Exception as error:
                raise _broken(f"layer {item.name!r}", _words(error)) from error
        return provider


def default_catalogue() -> Catalogue:
    """The catalogue of this process, discovered when first asked for."""
    known = _DEFAULT.get(ENTRY_POINT_GROUP)
    # setdefault: two threads that ask first at the same time must get the same one.
    return known or _DEFAULT.setdefault(ENTRY_POINT_GROUP, Catalogue.discover())


_DEFAULT: Final[dict[str, Catalogue]] = {}


def _distributions() -> Iterator[tuple[str, tuple[metadata.EntryPoint, ...] | str]]:
    """Name and entry points of each distribution that has any, or why they cannot be read."""
    seen: set[str] = set()
    for distribution in metadata.distributions():
        # One at a time, since one malformed file would else take all providers with it.
        try:
            points = tuple(distribution.entry_points.select(group=ENTRY_POINT_GROUP))
        except Exception as error:
            if ENTRY_POINT_GROUP in (distribution.read_text("entry_points.txt") or ""):
                yield str(distribution.name), f"its entry points cannot be read: {_words(error)}"
            continue
        name = str(distribution.name) if points else ""
        if points and name not in seen:  # the first on the path shadows the others
            seen.add(name)
            yield name, points


def _own_first(found: tuple[str, object]) -> tuple[bool, str]:
    return found[0] != _OWN_DISTRIBUTION, found[0]


def _maker(point: metadata.EntryPoint) -> Callable[[], object]:
    def make() -> object:
        return point.load()()

    return make


def _try_to_load(source: _Source) -> _Loaded:
    # SystemExit too: a plug-in that exits on import must not take the program with it.
    try:
        provider = _checked(source.make(), source.name)
        listed = tuple(provider.protocols())
    except (Exception, SystemExit) as error:
        return _Loaded(failure=_words(error), cause=error)
    if not listed or not all(isinstance(info, ProtocolInfo) for info in listed):
        return _Loaded(failure="protocols() must give at least one ProtocolInfo, and nothing else")
    if len(listed) > _IDS_PER_ITEM:
        return _Loaded(failure=f"protocols() gives more than {_IDS_PER_ITEM} entries")
    return _Loaded(provider, tuple(_numbered(listed, source.number)))


def _checked(made: Any, scheme: str) -> Provider:
    """What the entry point made, if it looks like a provider of this scheme; else TypeError."""
    for name in ("protocols", "select", "open"):
        if not callable(getattr(made, name, None)):
            raise TypeError(f"{type(made).__qualname__} has no method {name}()")
    if (said := getattr(made, "scheme", None)) != scheme:
        raise TypeError(f"registered as {scheme!r} but says its scheme is {said!r}")
    provider: Provider = made
    return provider


def _numbered(listed: Iterable[ProtocolInfo], number: int) -> Iterator[ProtocolInfo]:
    for index, info in enumerate(listed):
        entry_id = number * _IDS_PER_ITEM + index
        yield replace(info, catalog_entry_id=entry_id, chain=(entry_id,))


def _number(entry_id: int) -> int:
    return entry_id // _IDS_PER_ITEM


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _broken(origin: str, reason: str, scheme: str = "") -> ProviderBrokenError:
    what = f"provider {scheme!r} of {origin}" if scheme else origin
    return ProviderBrokenError(f"{what} is broken: {reason}", hint=_REMOVE_HINT)


def _no_entry(entry_id: int) -> CatalogueError:
    return CatalogueError(
        f"no entry {entry_id} in the catalogue", hint="See protocols() for those that exist"
    )


def _no_item(name: str, names: Iterable[str]) -> CatalogueError:
    return CatalogueError(
        f"{name!r} is not in the catalogue", hint=f"It has {', '.join(names) or 'nothing'}"
    )
