"""Every input kept in the corpus, and a brief run of each target."""

from __future__ import annotations

import pytest

from .mutate import CORPUS, Mutator, load
from .targets import TARGETS

SEED = 1
INPUTS = {"root": 700, "leaf": 1500, "invited": 1500}


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_the_corpus_replays_without_failure(name: str) -> None:
    corpus = load(name)
    assert corpus, f"no corpus for {name}"
    for data in corpus:
        TARGETS[name](data)


def test_every_folder_of_the_corpus_belongs_to_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= {*TARGETS, "transfer"}


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_some_thousand_mutations_find_nothing(name: str) -> None:
    mutator = Mutator(name, SEED)
    for number in range(INPUTS.get(name, 3000)):
        data = mutator.next()
        try:
            TARGETS[name](data)
        except Exception:
            print(f"input {number} of seed {SEED}: {data!r}")  # noqa: T201  # pytest shows it
            raise
