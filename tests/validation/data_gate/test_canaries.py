"""Kept embeddings: which are kept, and that a change of them is seen."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines import storage
from pipelines.contracts import data_rules
from pipelines.contracts.artifacts import ExpectationOutcome, Snapshot
from support.data_gate import CONFIG, judge, reference_of
from support.snapshots import Change, copy_snapshot, rewrite, with_vectors
from validation.data_gate import canaries
from validation.data_gate.canaries import (
    choose_canaries,
    compare_vectors,
    pins_of,
    read_canaries,
    smallest_hashes,
    write_canaries,
)
from validation.data_gate.gate import judge_snapshot


def judged(
    snapshot: Snapshot, tmp_path: Path, pattern: str, change: Change
) -> dict[str, ExpectationOutcome]:
    changed, folder = copy_snapshot(snapshot, tmp_path / "snapshot")
    for path in sorted(folder.glob(pattern)):
        relative = path.relative_to(folder).as_posix()
        changed = rewrite(changed, folder, relative, with_vectors(change))
    return judge(changed, folder, tmp_path / "out", reference=snapshot)


def shuffled(vectors: np.ndarray) -> np.ndarray:
    return np.random.default_rng(3).permutation(vectors)


def one(vectors: np.ndarray) -> np.ndarray:
    vectors[5] *= 1.01
    return vectors


@pytest.mark.parametrize(
    ("pattern", "change", "is_harm", "kind"),
    [
        ("pins.arrow", shuffled, True, "pins"),
        ("*/users.arrow", shuffled, True, "users"),
        ("pins.arrow", one, False, "pins"),  # a single change of many is a warning
        ("pins.arrow", lambda vectors: vectors.astype(np.float16).astype(np.float32), False, ""),
    ],
)
def test_vectors_that_change_under_their_version_are_told(
    planted_snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str,
    change: Change, is_harm: bool, kind: str,
) -> None:  # fmt: skip
    # One of 80 pins is more than 1 %.
    monkeypatch.setattr(data_rules, "CHANGED_EMBEDDINGS", data_rules.Bound(0.0, 0.02))
    outcomes = judged(planted_snapshot, tmp_path, pattern, change)
    warned, harm = outcomes["every_embedding_as_accepted"], outcomes["embeddings_as_accepted"]
    assert (warned.partitions, harm.is_met) == ((kind,) if kind else (), not is_harm)
    assert warned.is_judged and warned.is_met == (not kind)
    assert not kind or f" {kind}, such as " in warned.observed


@pytest.mark.parametrize(
    ("version", "why"),
    [("another", "'another' was the version before"), (None, "were kept")],
)
def test_other_versions_and_what_was_not_kept_are_not_compared(
    planted_snapshot: Snapshot, tmp_path: Path, version: str | None, why: str
) -> None:
    known, folder = reference_of(planted_snapshot), storage.local_path(planted_snapshot.uri)
    kept = replace(known.canaries, embedding_version=version) if version else None
    reference = replace(known, canaries=kept)
    found = judge_snapshot(planted_snapshot, folder, reference, CONFIG, tmp_path)
    (outcome,) = [each for each in found if each.name == "embeddings_as_accepted"]
    assert not outcome.is_judged and why in outcome.observed


NEW = np.arange(700) >= 600


def of_topics(change: Change = lambda vectors: vectors) -> tuple[canaries.Vectors, dict]:
    """Return the old of 700 pins that lie about thirty topics, and what is told of the new ones."""
    rng = np.random.default_rng(3)
    topics = rng.normal(size=(30, 32))[rng.integers(30, size=len(NEW))]
    vectors = (topics + 0.5 * rng.normal(size=topics.shape)).astype(np.float32)
    vectors[NEW] = change(vectors[NEW])
    pins = canaries.Vectors(np.arange(len(NEW)), np.zeros(len(NEW), np.int64), vectors)
    kept = smallest_hashes([pins.at(~NEW)])
    return kept, canaries.compare_new(kept, [pins.at(NEW), pins.at(~NEW)])


def rotated(vectors: np.ndarray) -> np.ndarray:
    axes, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(vectors.shape[1],) * 2))
    return vectors @ axes.astype(np.float32)


def constant(vectors: np.ndarray) -> np.ndarray:
    return np.repeat(vectors[:1], len(vectors), axis=0)


@pytest.mark.parametrize(
    ("change", "told"),
    [(lambda vectors: vectors, ()), (rotated, ("nearness",)), (constant, ("variety",)),
     (shuffled, ())],
)  # fmt: skip
def test_new_pins_of_another_basis_or_all_alike_are_told_and_swapped_ones_are_not(
    change: Change, told: tuple[str, ...]
) -> None:
    kept, found = of_topics(change)
    assert len(kept.ids) == canaries.NUM_CANARIES
    below = tuple(name for name, share in found.items() if share < data_rules.NEW_EMBEDDINGS)
    assert set(found) == {"nearness", "variety"} and below == told
    assert canaries.compare_new(kept, [kept]) == {}  # none is new
    narrow = replace(kept, ids=kept.ids + 10_000, vectors=kept.vectors[:, :3])
    assert canaries.compare_new(kept, [narrow]) == {}


@pytest.mark.parametrize("is_alike", [False, True])
def test_new_pins_that_are_all_alike_stop_the_cycle(
    planted_snapshot: Snapshot, tmp_path: Path, is_alike: bool
) -> None:
    known = reference_of(planted_snapshot)
    assert known.canaries is not None
    kept = known.canaries.pins.at(np.arange(len(known.canaries.pins.ids)) < 40)
    reference = replace(known, canaries=replace(known.canaries, pins=kept))

    def changed(vectors: np.ndarray) -> np.ndarray:
        is_new = ~np.isin(ids, kept.ids)
        vectors[is_new] = constant(vectors[is_new]) if is_alike else vectors[is_new]
        return vectors

    snapshot, folder = copy_snapshot(planted_snapshot, tmp_path / "snapshot")
    ids = np.concatenate([part.ids for part in pins_of(folder)])
    snapshot = rewrite(snapshot, folder, "pins.arrow", with_vectors(changed))
    found = judge_snapshot(snapshot, folder, reference, CONFIG, tmp_path)
    [outcome] = [each for each in found if each.name == "new_embeddings_like_accepted"]
    assert outcome.is_judged and outcome.is_met is not is_alike
    assert outcome.partitions == (("variety",) if is_alike else ())


def test_a_file_gives_back_what_was_kept(planted_snapshot: Snapshot, tmp_path: Path) -> None:
    folder = storage.local_path(planted_snapshot.uri)
    kept = choose_canaries(planted_snapshot, folder)
    write_canaries(kept, tmp_path / "canaries.arrow")
    back = read_canaries((tmp_path / "canaries.arrow").read_bytes())
    assert back.embedding_version == planted_snapshot.embedding_version
    assert np.array_equal(back.pins.ids, kept.pins.ids)
    assert np.array_equal(back.users.vectors, kept.users.vectors)
    assert compare_vectors("pins", back.pins, pins_of(folder)) == (0.0, "")


def test_the_choice_depends_on_ids_alone_and_not_on_parts(
    planted_snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canaries, "NUM_CANARIES", 30)
    chosen = []
    for size in (canaries.PINS_PER_PART, 7):
        monkeypatch.setattr(canaries, "PINS_PER_PART", size)
        chosen.append(smallest_hashes(pins_of(storage.local_path(planted_snapshot.uri))).ids)
    assert len(chosen[0]) == 30 and np.array_equal(*chosen)
