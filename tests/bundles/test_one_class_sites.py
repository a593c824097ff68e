"""Site-adapted models that can and cannot tell images of one class: records, bundles, predictions, evaluations."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from ball_features.bundles.bundle import read_bundle
from ball_features.bundles.facts import BundleFacts
from ball_features.bundles.site_use import answer_for, describe_sites, require_word
from ball_features.bundles.sums import write_checksums
from ball_features.cache import read_cache
from ball_features.config import FitConfig, Saving
from ball_features.errors import ConfigError, DataError
from ball_features.models.one_class import OneClassRecord
from ball_features.reporting.card import write_card
from ball_features.runs.evaluate import evaluate
from ball_features.runs.fit import fit
from ball_features.runs.mixed_sites import mixed_sites
from tests.made import NAMES, write_cache

SITES = ("a", "b", "c")
CORNERS = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])


def drawn(apart, shift, sites=SITES, counts=(20, 20, 20, 20), seed=0):
    """Embeddings (images, 8) of four classes around each site's offset, the class and the site of each.

    Classes lie at the corners of a square with sides of twice `apart` in the first two dimensions, with noise of
    deviation 1. Sites are shifted by `shift` deviations: along these two, and along the six others.
    """
    rng = np.random.default_rng(seed)
    code = np.tile(np.repeat(np.arange(4), counts), len(sites))
    offset = np.repeat(rng.normal(size=(len(sites), 8)) * np.repeat(shift, [2, 6]), sum(counts), 0)
    X = rng.normal(size=(len(code), 8)) + offset
    X[:, :2] += apart * CORNERS[code]
    return X, [NAMES[own] for own in code], np.repeat(sites, sum(counts)).tolist()


KINDS = {"tells": (5.0, (0.5, 0.5)), "cannot": (1.0, (0.7, 3.0))}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run for each kind of embeddings: classes far apart, and classes that sites move into each other."""
    root = tmp_path_factory.mktemp("sites")
    found = {}
    for kind, (apart, shift) in KINDS.items():
        X, label, site = drawn(apart, shift)
        cache = write_cache(root / f"{kind}.h5", X, label)
        rows = [f"{path},{name}" for path, name in zip(read_cache(cache).path, site, strict=True)]
        (root / "sites.csv").write_text("\n".join(["path,site", *rows]) + "\n")
        config = FitConfig(
            protocol="leave-site-out",
            models=("lda",),
            repeats=1,
            adapt="auto",
            groups=str(root / "sites.csv"),
        )
        found[kind] = fit(cache, config, out_root=root / "runs", name=kind, save=Saving("all", final=True))
        none = replace(config, adapt="balanced")
        found[f"{kind} balanced"] = fit(cache, none, out_root=root / "runs", name=f"{kind}-b", save="lda")
    return found


@pytest.fixture
def bundles(runs):
    return {kind: read_bundle(run.bundles[0]) for kind, run in runs.items()}


def details(run):
    return json.loads((run.folder / "run.json").read_text())


def test_a_run_records_what_batches_of_one_class_do(runs, bundles):
    for kind in KINDS:
        own = details(runs[kind])["one_class"]["lda"]
        assert own["batches"] == 12
        assert [part["left_out"] for part in own["splits"]] == list(SITES)
        assert own["auto"] == pytest.approx(np.mean([part["auto"] for part in own["splits"]]))
        record = bundles[kind].facts.one_class
        assert record is not None and record.batches == 12
        assert record.tells == (kind == "tells")
        assert "one_class" not in details(runs[f"{kind} balanced"])
        assert bundles[f"{kind} balanced"].facts.one_class is None
    cannot = details(runs["cannot"])["one_class"]["lda"]
    assert cannot["without"] - cannot["auto"] > 0.1
    (note,) = (note for note in details(runs["cannot"])["notes"] if note.startswith("Batches of one class"))
    assert "lda loses more than 5 points" in note and "hold for batches of several classes" in note
    (note,) = (note for note in details(runs["tells"])["notes"] if note.startswith("Batches of one class"))
    assert "loses" not in note


@pytest.mark.slow
@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_model_of_a_run_that_left_no_site_out_is_tried_where_it_is_saved(runs, tmp_path, kind, final):
    root = runs[kind].folder.parent.parent
    config = FitConfig(models=("lda",), repeats=1, adapt="auto", groups=str(root / "sites.csv"))
    run = fit(root / f"{kind}.h5", config, out_root=tmp_path, save=Saving("lda", final=final))
    record = read_bundle(run.bundles[0]).facts.one_class
    assert record is not None and record.batches == 12
    assert record.tells == (kind == "tells")
    assert "one_class" not in details(run)


@pytest.mark.slow
def test_the_trial_changes_nothing_else(runs, monkeypatch, tmp_path):
    monkeypatch.setattr("ball_features.evaluation.fit_split.try_one_class", lambda *_: None)
    root = runs["cannot"].folder.parent.parent
    config = FitConfig(
        protocol="leave-site-out", models=("lda",), repeats=1, adapt="auto", groups=str(root / "sites.csv")
    )
    again = fit(root / "cannot.h5", config, out_root=tmp_path)
    for name in ("predictions.csv", "splits.csv"):
        assert (again.folder / name).read_bytes() == (runs["cannot"].folder / name).read_bytes()
    assert any(note.startswith("No site with 10 images of a class was left out") for note in details(again)["notes"])


def test_verdict_and_card_say_which_it_is(runs, bundles, tmp_path):
    for kind in KINDS:
        (found,) = (item for item in runs[kind].findings if item.code == "site-adapted")
        assert ("lda cannot tell" in found.sentence) == (kind == "cannot")
        card = write_card(bundles[kind], runs[kind].bundles[0], tmp_path / f"{kind}.md").read_text(encoding="utf-8")
        assert ("said to be of several classes" in card) == (kind == "cannot")
        assert ("It bears images of one class: on 12 batches" in card) == (kind == "tells")


def new_site(kind, counts):
    X, label, _ = drawn(*KINDS[kind], sites=("new",), counts=counts, seed=5)
    return X[:, None].astype(np.float32), label


def test_a_model_that_cannot_tell_waits_for_word(bundles):
    X, _ = new_site("cannot", (20, 20, 20, 20))
    bundle = bundles["cannot"]
    assert bundle.sites is not None
    own, told = answer_for(bundle, "new", X)
    assert own.offset is not None
    np.testing.assert_array_equal(own.offset, bundle.sites.adapter.average)
    assert told.startswith(
        "Not adapted to new: the model cannot tell images of one class from images of several: on 12"
    )
    assert "adapting cost" in told and "(setting A)" in told and "say so by the option mixed" in told
    with pytest.raises(ConfigError, match=r"on 12 batches of one class .* adapting cost"):
        require_word(bundle, "new")
    own, told = answer_for(bundle, "new", X, mixed=True)
    assert told.startswith("Site-adapted to new")
    assert (own.offset != bundle.sites.adapter.average).any()
    _, told = answer_for(bundle, "new", X[:9], mixed=True)
    assert "expected at least 10" in told
    _, told = answer_for(bundle, "new", X[:9])
    assert "expected at least 10" in told  # what is missing first


def test_a_model_that_tells_needs_no_word(bundles):
    X, _ = new_site("tells", (20, 20, 20, 20))
    bundle = bundles["tells"]
    require_word(bundle, "new")
    assert answer_for(bundle, "new", X)[1].startswith("Site-adapted to new")
    _, notes = describe_sites(bundle, [str(row) for row in range(len(X))], X, 0.9, ["new"] * len(X))
    assert notes[0].startswith("Site-adapted to new")


def test_a_method_without_a_guard_asks_for_nothing(bundles):
    for kind in KINDS:
        assert bundles[f"{kind} balanced"].facts.needs_word == ""
    X, _ = new_site("cannot", (20, 20, 20, 20))
    assert answer_for(bundles["cannot balanced"], "new", X)[1].startswith("Site-adapted to new")


@pytest.mark.slow
def test_an_evaluation_takes_labels_for_its_word(runs, tmp_path):
    X, label = new_site("cannot", (20, 20, 20, 20))
    even = write_cache(tmp_path / "even.h5", X[:, 0], label, {"site": ["new"] * len(X)})
    found = evaluate(runs["cannot"].bundles[0], even)
    assert any(note.startswith("Site-adapted to new") for note in found.notes)
    assert any(note.startswith("new: taken to hold several classes") for note in found.notes)
    X, label = new_site("cannot", (0, 37, 3, 0))
    one = write_cache(tmp_path / "one.h5", X[:, 0], label, {"site": ["new"] * len(X)})
    found = evaluate(runs["cannot"].bundles[0], one)
    assert any(note.startswith("Not adapted to new: the model cannot tell") for note in found.notes)
    assert not any("taken to hold" in note for note in found.notes)
    X, label = new_site("tells", (20, 20, 20, 20))
    plain = write_cache(tmp_path / "plain.h5", X[:, 0], label, {"site": ["new"] * len(X)})
    found = evaluate(runs["tells"].bundles[0], plain)
    assert any(note.startswith("Site-adapted to new") for note in found.notes)
    assert not any("taken to hold" in note for note in found.notes)


def test_two_classes_of_a_tenth_make_a_site_mixed():
    site = ["x"] * 20 + ["y"] * 20 + ["z"] * 20 + [""] * 20
    label = ["a"] * 18 + ["b"] * 2 + ["a"] * 19 + ["b"] + [""] * 10 + ["a"] * 10 + ["a", "b"] * 10
    assert mixed_sites(site, label) == ["x"]


def test_a_bundle_of_an_earlier_version_is_read_and_waits_for_word(runs, tmp_path):
    folder = shutil.copytree(runs["tells"].bundles[0], tmp_path / "old")
    values = json.loads((folder / "bundle.json").read_text())
    del values["one_class"]
    (folder / "bundle.json").write_text(json.dumps(values))
    write_checksums(folder)
    bundle = read_bundle(folder)
    assert bundle.facts.one_class is None
    X, _ = new_site("tells", (20, 20, 20, 20))
    assert "holds no trial of batches of one class" in answer_for(bundle, "new", X)[1]
    assert answer_for(bundle, "new", X, mixed=True)[1].startswith("Site-adapted to new")


GOOD = {"batches": 4, "adapted": 4, "without": 0.5, "auto": 0.5}


@pytest.mark.parametrize(
    "value",
    [{}, [], [[]], True, -1, 1e308, "x", float("nan"), GOOD | {"adapted": 5}, GOOD | {"batches": 10**400},
     GOOD | {"without": float("nan")}, GOOD | {"auto": -0.1}, GOOD | {"more": 1}, GOOD | {"auto": None}],
)  # fmt: skip
def test_a_record_that_is_none_is_damage(runs, tmp_path, value):
    folder = shutil.copytree(runs["tells"].bundles[0], tmp_path / "bundle")
    values = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(values | {"one_class": value}))
    write_checksums(folder)
    with pytest.raises(DataError, match="damaged"):
        read_bundle(folder)


def test_an_unknown_method_of_adaptation_is_damage(runs, tmp_path):
    folder = shutil.copytree(runs["tells"].bundles[0], tmp_path / "bundle")
    values = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(values | {"adapt": "combat"}))
    write_checksums(folder)
    with pytest.raises(DataError, match="adapt out of range"):
        read_bundle(folder)


def test_facts_keep_the_record(bundles):
    facts = bundles["cannot"].facts
    assert BundleFacts.from_json(json.loads(json.dumps(facts.to_json()))) == facts
    assert isinstance(facts.one_class, OneClassRecord)
