"""The catalogue: discovery, order, ids, layers and chains."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from joinleaf.errors import CatalogueError, ProviderBrokenError, ProviderNotFoundError
from joinleaf.spi.catalogue import Catalogue, default_catalogue
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import Endpoint, Provider, Roles, Settings
from joinleaf.values import SessionAddress


class FakeProvider:
    def __init__(self, scheme: str, entries: int = 1) -> None:
        self.scheme = scheme
        self.entries = entries

    def protocols(self) -> Sequence[ProtocolInfo]:
        return [
            ProtocolInfo(service_flags=0, name=f"{self.scheme} {index}")
            for index in range(self.entries)
        ]

    def select(self, address: SessionAddress) -> ProtocolInfo:
        return self.protocols()[0]

    def open(
        self,
        info: ProtocolInfo,
        roles: Roles,
        settings: Settings | None = None,
        *,
        address: SessionAddress | None = None,
    ) -> Endpoint:
        raise NotImplementedError


class Wrapped(FakeProvider):
    def __init__(self, label: str, lower: Provider) -> None:
        super().__init__(lower.scheme)
        self.label = label
        self.lower = lower


@dataclass
class Layer:
    label: str

    def wrap(self, lower: Provider) -> Provider:
        return Wrapped(self.label, lower)


class BrokenLayer:
    def wrap(self, lower: Provider) -> Provider:
        raise RuntimeError("no room below")


LAYER_INFO = ProtocolInfo(service_flags=0, name="a layer")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on sys.path for made-up distributions; modules loaded from it are forgotten."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    importlib.invalidate_caches()


def install(site: Path, name: str, entry_points: str, module: str | None = None) -> None:
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    if module is not None:
        (site / f"{name.replace('-', '_')}.py").write_text(module)


GOOD_MODULE = """
from joinleaf.spi.protocol_info import ProtocolInfo
loads = 0
class Made:
    scheme = "made"
    def __init__(self):
        global loads
        loads += 1
    def protocols(self):
        return [ProtocolInfo(service_flags=0, name="made up")]
    def select(self, address):
        return self.protocols()[0]
    def open(self, info, roles, settings=None, *, address=None):
        raise NotImplementedError
"""


def test_another_package_adds_a_provider_by_an_entry_point(site: Path) -> None:
    install(site, "made-up", "[joinleaf.providers]\nmade = made_up:Made\n", GOOD_MODULE)
    catalogue = Catalogue.discover()
    assert "made" in catalogue.schemes
    assert "made_up" not in sys.modules, "listing schemes must load nothing"
    provider = catalogue.provider_for("made://host:1")
    assert provider.scheme == "made"
    assert catalogue.find("made") is provider
    assert sys.modules["made_up"].loads == 1


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("raise RuntimeError('out of order')", "out of order"),
        ("import no_such_module_anywhere", "no_such_module_anywhere"),
        ("raise SystemExit(3)", "SystemExit"),
        ("Made = 5", "not callable"),
        ("class Made: scheme = 'made'", "no method protocols"),
        (GOOD_MODULE.replace('scheme = "made"', 'scheme = "other"'), "'other'"),
        (GOOD_MODULE.replace("return [ProtocolInfo", "return []; [ProtocolInfo"), "at least one"),
        (GOOD_MODULE.replace("return [ProtocolInfo", "return range(2000); [("), "syntax"),
        ("other = 1", "Made"),
    ],
)
def test_a_broken_plug_in_harms_nobody_else_and_is_named_with_the_reason(
    site: Path, module: str, reason: str
) -> None:
    install(site, "bad-plugin", "[joinleaf.providers]\nmade = bad_plugin:Made\n", module)
    install(
        site,
        "made-up",
        "[joinleaf.providers]\nsound = made_up:Made\n",
        GOOD_MODULE.replace('"made"', '"sound"'),
    )
    catalogue = Catalogue.discover()
    for _ in range(2):  # and not only the first time
        with pytest.raises(ProviderBrokenError) as caught:
            catalogue.find("made")
        assert "bad-plugin" in str(caught.value)
        assert reason.lower() in str(caught.value).lower()
        assert str(caught.value).endswith(caught.value.hint)
    assert catalogue.find("sound").scheme == "sound"
    assert "made up" in [info.name for info in catalogue.protocols()]
    assert any("bad-plugin" in str(error) for error in catalogue.broken())


def test_unreadable_entry_points_of_one_package_leave_the_others_in_place(site: Path) -> None:
    install(site, "garbled", "[joinleaf.providers]\nno equals sign here\n")
    install(site, "made-up", "[joinleaf.providers]\nmade = made_up:Made\n", GOOD_MODULE)
    catalogue = Catalogue.discover()
    assert catalogue.find("made").scheme == "made"
    assert any("garbled" in str(error) for error in catalogue.broken())


def test_a_plug_in_cannot_take_over_a_scheme_that_is_taken(site: Path) -> None:
    install(site, "aaa", "[joinleaf.providers]\nmade = aaa:Made\n", GOOD_MODULE)
    install(site, "bbb", "[joinleaf.providers]\nmade = bbb:Made\nA_B = bbb:Made\n", GOOD_MODULE)
    catalogue = Catalogue.discover()
    assert type(catalogue.find("made")).__module__ == "aaa"
    reasons = " ".join(str(error) for error in catalogue.broken() if "bbb" in str(error))
    assert "already belongs to distribution 'aaa'" in reasons
    assert "'A_B' cannot be the scheme" in reasons


def test_the_own_providers_come_first_and_are_found_by_entry_point(site: Path) -> None:
    install(site, "aaa", "[joinleaf.providers]\nmade = aaa:Made\n", GOOD_MODULE)
    schemes = Catalogue.discover().schemes
    if "mem" not in schemes:
        pytest.skip("joinleaf itself is not installed, so it has no entry points")
    assert {"mem", "udp", "ssm", "jl"} <= set(schemes[: schemes.index("made")])


def test_an_unknown_scheme_is_refused_with_the_known_ones() -> None:
    catalogue = Catalogue()
    with pytest.raises(ProviderNotFoundError, match="Known schemes: none"):
        catalogue.find("udo")
    catalogue.add(FakeProvider("udp"))
    with pytest.raises(ProviderNotFoundError, match=r"no provider for udo://.*udp://"):
        catalogue.find("udo")


def test_the_default_catalogue_is_one_and_the_same() -> None:
    assert default_catalogue() is default_catalogue()


def test_ids_are_unique_and_survive_removal_and_reordering() -> None:
    catalogue = Catalogue()
    catalogue.add(FakeProvider("a", 3))
    kept = catalogue.add(FakeProvider("b", 2))
    ids = [info.catalog_entry_id for info in catalogue.protocols()]
    assert len(set(ids)) == 5
    assert all(info.chain == (info.catalog_entry_id,) and info.is_base for info in kept)
    catalogue.remove("a")
    catalogue.add(FakeProvider("c", 3))
    catalogue.reorder(["c"])
    names = [info.name for info in catalogue.protocols()]
    assert names == ["c 0", "c 1", "c 2", "b 0", "b 1"]
    after = [info.catalog_entry_id for info in catalogue.protocols()]
    assert after[3:] == ids[3:]
    assert not set(after[:3]) & set(ids), "a number must never come back"
    assert catalogue.entry(ids[4]).name == "b 1"


def test_ids_do_not_depend_on_which_provider_is_loaded_first(site: Path) -> None:
    install(site, "aaa", "[joinleaf.providers]\nmade = aaa:Made\n", GOOD_MODULE)
    install(
        site,
        "bbb",
        "[joinleaf.providers]\nother = bbb:Made\n",
        GOOD_MODULE.replace('"made"', '"other"').replace("made up", "other up"),
    )
    forwards, backwards = Catalogue.discover(), Catalogue.discover()
    forwards.find("made")
    backwards.find("other")
    assert forwards.protocols() == backwards.protocols()


@pytest.mark.parametrize("scheme", ["", "UDP", "a b", None, 7])
def test_a_provider_without_a_usable_scheme_is_not_added(scheme: object) -> None:
    catalogue = Catalogue()
    provider = FakeProvider("x")
    provider.scheme = scheme  # type: ignore[assignment]  # the mistake under test
    with pytest.raises(ProviderBrokenError, match="cannot be the scheme"):
        catalogue.add(provider)
    assert catalogue.names == ()


def test_a_provider_without_entries_is_not_added() -> None:
    catalogue = Catalogue()
    with pytest.raises(ProviderBrokenError, match="at least one"):
        catalogue.add(FakeProvider("x", 0))
    with pytest.raises(ProviderBrokenError, match="more than 1000"):
        catalogue.add(FakeProvider("x", 1001))
    assert catalogue.names == ()


def test_a_name_is_given_once_and_unknown_names_change_nothing() -> None:
    catalogue = Catalogue()
    catalogue.add(FakeProvider("a"))
    catalogue.add(FakeProvider("b"))
    with pytest.raises(CatalogueError, match="in the catalogue already"):
        catalogue.add(FakeProvider("a"))
    with pytest.raises(CatalogueError, match="'z' is not in the catalogue"):
        catalogue.reorder(["b", "z"])
    with pytest.raises(CatalogueError, match="'z' is not in the catalogue"):
        catalogue.remove("z")
    with pytest.raises(CatalogueError, match="no entry 424242"):
        catalogue.entry(424242)
    assert catalogue.names == ("a", "b")


def layered() -> tuple[Catalogue, list[int]]:
    catalogue = Catalogue()
    (base,) = catalogue.add(FakeProvider("udp"))
    top = catalogue.add_layer("trace", LAYER_INFO, Layer("trace"))
    low = catalogue.add_layer("shape", LAYER_INFO, Layer("shape"))
    return catalogue, [top.catalog_entry_id, low.catalog_entry_id, base.catalog_entry_id]


def test_a_chain_composes_its_layers_from_the_top_down() -> None:
    catalogue, ids = layered()
    chain = catalogue.add_chain("traced udp", ids)
    assert chain.is_chain
    assert chain.chain == tuple(ids)
    assert chain.name == "traced udp over [udp 0]"
    provider = catalogue.open_chain(chain.catalog_entry_id)
    assert isinstance(provider, Wrapped)
    assert provider.label == "trace"
    assert isinstance(provider.lower, Wrapped)
    assert provider.lower.label == "shape"
    assert provider.lower.lower is catalogue.find("udp")
    assert catalogue.open_chain(ids[-1]) is catalogue.find("udp")


def test_a_chain_is_found_for_its_scheme_only_while_it_stands_before_its_base() -> None:
    catalogue, ids = layered()
    catalogue.add_chain("traced udp", ids)
    assert not isinstance(catalogue.find("udp"), Wrapped)
    catalogue.reorder(["traced udp"])
    assert isinstance(catalogue.find("udp"), Wrapped)
    catalogue.remove("traced udp")
    assert not isinstance(catalogue.find("udp"), Wrapped)
    catalogue.add_chain("again", ids, first=True)
    assert isinstance(catalogue.find("udp"), Wrapped)


def test_a_layer_cannot_be_used_by_itself() -> None:
    catalogue, ids = layered()
    assert catalogue.entry(ids[0]).is_layered
    with pytest.raises(CatalogueError, match="is the layer 'trace'"):
        catalogue.open_chain(ids[0])


def test_a_chain_has_two_to_seven_parts_with_layers_above_one_base() -> None:
    catalogue, (top, low, base) = layered()
    for ids in ([base], [top] * 7 + [base]):
        with pytest.raises(CatalogueError, match="Give 2 to 7"):
            catalogue.add_chain("x", ids)
    for ids in ([base, top], [top, low], [base, base]):
        with pytest.raises(CatalogueError, match="cannot stand at place"):
            catalogue.add_chain("x", ids)
    for ids in ([top, 999_000], [top, base + 1]):
        with pytest.raises(CatalogueError, match="no entry"):
            catalogue.add_chain("x", ids)
    assert catalogue.names == ("udp", "trace", "shape")
    assert len(catalogue.add_chain("x", [top] * 6 + [base]).chain) == 7


def test_what_a_chain_needs_cannot_be_removed() -> None:
    catalogue, ids = layered()
    catalogue.add_chain("x", ids)
    for name in ("udp", "shape"):
        with pytest.raises(CatalogueError, match="part of the chain 'x'"):
            catalogue.remove(name)
    catalogue.remove("x")
    catalogue.remove("udp")
    assert catalogue.schemes == ()


def test_a_layer_that_fails_is_named() -> None:
    catalogue = Catalogue()
    (base,) = catalogue.add(FakeProvider("udp"))
    layer = catalogue.add_layer("bad", LAYER_INFO, BrokenLayer())
    chain = catalogue.add_chain("x", [layer.catalog_entry_id, base.catalog_entry_id])
    with pytest.raises(ProviderBrokenError, match=r"layer 'bad'.*no room below"):
        catalogue.open_chain(chain.catalog_entry_id)
