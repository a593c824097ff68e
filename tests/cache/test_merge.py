"""Shards and their merge: the rows of a single extraction, and refusals by name."""

import json

import numpy as np
import pytest

from ball_features import ExtractConfig, extract, merge, read_cache
from ball_features.errors import CacheError, ConfigError
from tests.commands import ball
from tests.tiny import TINY

pytestmark = pytest.mark.usefixtures("tiny_densenet")
CONFIG = ExtractConfig(backbone=TINY, weights="random", views=2, recipe="report", input_px=64, precision="fp32")


@pytest.fixture(scope="module")
def sheet(tmp_path_factory, smears):
    names = sorted(str(path.relative_to(smears)) for path in smears.glob("*/*.*"))
    path = tmp_path_factory.mktemp("sheet") / "sheet.csv"
    path.write_text("path,patient\n" + "".join(f"{name},P{i // 4}\n" for i, name in enumerate(names)))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory, smears, sheet, tiny_densenet):
    return extract(smears, tmp_path_factory.mktemp("whole") / "c.h5", CONFIG, sheet=sheet).cache


@pytest.fixture(scope="module")
def shards(tmp_path_factory, smears, sheet, tiny_densenet):
    folder = tmp_path_factory.mktemp("shards")
    return [extract(smears, folder / f"{i}.h5", CONFIG, sheet=sheet, shard=(i, 3)).cache for i in (1, 2, 3)]


@pytest.mark.slow
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_merged_shards_are_the_cache_of_one_run(tmp_path, whole, shards, order):
    done = merge([shards[i] for i in order], tmp_path / "all.h5")
    one, two = read_cache(whole), read_cache(tmp_path / "all.h5")
    assert done.images == len(one.path)
    assert two.complete
    for name in ("embeddings", "path", "label", "sha256"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    assert one.view == two.view
    assert one.fingerprint == two.fingerprint
    assert {k: v.tolist() for k, v in one.columns.items()} == {k: v.tolist() for k, v in two.columns.items()}
    assert all(np.array_equal(one.shortcuts[name], two.shortcuts[name]) for name in one.shortcuts)
    assert "shard" not in two.attributes


def test_a_merged_cache_is_extended_like_any_other(tmp_path, smears, sheet, shards):
    merge(shards, tmp_path / "all.h5")
    assert extract(smears, tmp_path / "all.h5", CONFIG, sheet=sheet).computed == 0


def test_a_finished_shard_is_not_computed_again(smears, sheet, shards):
    assert extract(smears, shards[1], CONFIG, sheet=sheet, shard=(2, 3)).computed == 0


@pytest.mark.slow
def test_a_shard_in_place_of_another_is_refused(smears, sheet, shards):
    with pytest.raises(CacheError, match="is shard 2 of 3, and shard 1 of 3 was asked for"):
        extract(smears, shards[1], CONFIG, sheet=sheet, shard=(1, 3))
    with pytest.raises(CacheError, match="no shard was asked for"):
        extract(smears, shards[1], CONFIG, sheet=sheet)


@pytest.mark.parametrize(
    ("given", "message"), [((0, 2), "shard 2 is missing"), ((0, 0, 1, 2), "shard 1 is given twice")]
)
def test_missing_and_repeated_shards_are_named(tmp_path, shards, given, message):
    with pytest.raises(CacheError, match=message):
        merge([shards[i] for i in given], tmp_path / "all.h5")
    assert not list(tmp_path.glob("*merging*"))


@pytest.mark.slow
def test_shards_of_other_settings_are_refused(tmp_path, smears, sheet, shards):
    from dataclasses import replace

    other = extract(smears, tmp_path / "o.h5", replace(CONFIG, normalize="half"), sheet=sheet, shard=(3, 3)).cache
    with pytest.raises(CacheError, match="normalize"):
        merge([*shards[:2], other], tmp_path / "all.h5")


def test_nothing_is_replaced(tmp_path, whole, shards):
    before = whole.read_bytes()
    with pytest.raises(CacheError, match="exists"):
        merge(shards, whole)
    assert whole.read_bytes() == before


@pytest.mark.slow
def test_caches_without_numbers_join_if_their_images_agree(tmp_path, whole, smears, sheet):
    half = extract(smears, tmp_path / "half.h5", ExtractConfig(**{**CONFIG.to_dict(), "limit": 20}), sheet=sheet).cache
    done = merge([half, whole], tmp_path / "all.h5")
    assert (done.images, done.repeated) == (len(read_cache(whole).path), 20)


@pytest.mark.parametrize("shard", [(0, 3), (4, 3), (1, 1000)])
def test_numbers_that_are_no_shard_are_refused(tmp_path, smears, shard):
    with pytest.raises(ConfigError, match="expected I/N"):
        extract(smears, tmp_path / "c.h5", CONFIG, shard=shard)


@pytest.mark.slow
def test_the_commands(tmp_path, smears):
    options = ("--backbone", "mobilenet_v3_large", "--weights", "random", "--input-px", 64, "--precision", "fp32")
    for number in (1, 2):
        done = ball("extract", smears, "--out", tmp_path / f"{number}.h5", "--shard", f"{number}/2", *options)
        assert done.returncode == 0, done.stderr
    done = ball("merge", tmp_path / "1.h5", tmp_path / "2.h5", "--out", tmp_path / "all.h5", "--json")
    assert json.loads(done.stdout)["images"] == 48
    wrong = ball("extract", smears, "--out", tmp_path / "3.h5", "--shard", "3of2", *options)
    assert wrong.returncode == 2
    assert "expected I/N" in wrong.stderr
