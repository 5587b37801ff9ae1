"""Sizes, offsets and parameter lists against what a compiler made of the public headers."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import pytest

from joinleaf.winsock import types as t
from joinleaf.winsock.declarations import OTHER_FUNCTIONS, PROVIDER_FUNCTIONS, UPCALLS, Prototype

REFERENCE: dict[str, Any] = json.loads(
    Path(__file__).with_name("winsock-layouts.json").read_text(encoding="utf-8")
)
WORDS = {"win64": 8, "win32": 4}
HERE = "win64" if t.POINTER_BYTES == 8 else "win32"


def shape(structure: type[ctypes.Structure], names: list[str]) -> dict[str, Any]:
    fields = {name: getattr(structure, name) for name in names}
    return {
        "size": ctypes.sizeof(structure),
        "align": ctypes.alignment(structure),
        "fields": {
            name: {"offset": field.offset, "size": field.size} for name, field in fields.items()
        },
    }


@pytest.mark.parametrize("platform", WORDS)
@pytest.mark.parametrize("name", REFERENCE["layouts"]["win64"])
def test_a_structure_is_laid_out_as_the_compiler_lays_it_out(platform: str, name: str) -> None:
    expected = REFERENCE["layouts"][platform][name]
    structure = t.layouts(WORDS[platform])[name]
    assert shape(structure, list(expected["fields"])) == expected


@pytest.mark.parametrize("name", REFERENCE["layouts"][HERE])
def test_the_class_programs_use_has_the_layout_of_this_platform(name: str) -> None:
    expected = REFERENCE["layouts"][HERE][name]
    assert shape(getattr(t, name), list(expected["fields"])) == expected


def test_no_structure_is_laid_out_that_the_reference_does_not_know() -> None:
    assert set(t.layouts(8)) == set(REFERENCE["layouts"]["win64"])
    assert set(t.layouts(4)) == set(REFERENCE["layouts"]["win32"])


def test_join_leaf_is_entry_17_of_the_procedure_table() -> None:
    assert list(PROVIDER_FUNCTIONS).index("WSPJoinLeaf") == 17
    assert t.layouts(8)["WSPPROC_TABLE"].lpWSPJoinLeaf.offset == 136
    assert t.layouts(4)["WSPPROC_TABLE"].lpWSPJoinLeaf.offset == 68


def spelled(prototype: Prototype) -> tuple[str, list[tuple[str, str]]]:
    parameters = [(kind.replace(" *", "*"), name) for kind, name in prototype.parameters]
    return prototype.returns, parameters


def reference(entry: dict[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    parameters = [(p["type"].replace(" *", "*"), p["name"]) for p in entry["params"]]
    return entry["returns"], parameters


@pytest.mark.parametrize(
    ("declared", "key"), [(PROVIDER_FUNCTIONS, "WSPPROC_TABLE"), (UPCALLS, "WSPUPCALLTABLE")]
)
def test_a_table_has_the_functions_of_the_header_in_its_order(declared: Any, key: str) -> None:
    entries = REFERENCE[f"{key}_order"]
    assert list(declared) == [entry["function"] for entry in entries]
    for entry in entries:
        assert spelled(declared[entry["function"]]) == reference(entry), entry["function"]


def test_functions_outside_the_tables_have_the_parameters_of_the_header() -> None:
    for title, entry in REFERENCE["other_prototypes"].items():
        assert spelled(OTHER_FUNCTIONS[title.split()[0]]) == reference(entry), title


@pytest.mark.parametrize("name", [*PROVIDER_FUNCTIONS, *UPCALLS])
def test_a_function_type_passes_as_many_words_as_the_prototype_has_parameters(name: str) -> None:
    prototype = {**PROVIDER_FUNCTIONS, **UPCALLS}[name]
    kind = t.FUNCTION_TYPES[name]
    assert len(kind._argtypes_) == len(prototype.parameters)
    wide = {"SOCKET", "WSAEVENT"}
    expected = t.POINTER_BYTES if prototype.returns in wide else 4
    assert ctypes.sizeof(kind._restype_) == expected


def test_invalid_socket_is_all_ones_and_no_handle_is_none() -> None:
    assert t.SOCKET(-1).value == t.INVALID_SOCKET
    overlapped = t.WSAOVERLAPPED()
    assert overlapped.hEvent == 0
