"""Shards and their merge: the rows of a single extraction, and refusals by name."""

import json
import shutil

import numpy as np
import pytest

from ball_features import ExtractConfig, extract, merge, read_cache
from ball_features.errors import CacheError, ConfigError
from tests.commands import TINY_DENSENET, ball
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


@pytest.mark.slow
def test_a_merged_cache_is_extended_like_any_other(tmp_path, smears, sheet, shards):
    merge(shards, tmp_path / "all.h5")
    assert extract(smears, tmp_path / "all.h5", CONFIG, sheet=sheet).computed == 0


def test_a_finished_shard_is_not_computed_again(smears, sheet, shards):
    assert extract(smears, shards[1], CONFIG, sheet=sheet, shard=(2, 3)).computed == 0


@pytest.mark.slow
def test_the_one_shard_of_one_is_merged(tmp_path, smears, whole):
    with pytest.raises(CacheError, match="expected two or more shards"):
        merge([whole], tmp_path / "all.h5")
    shard = extract(smears, tmp_path / "1.h5", CONFIG, shard=(1, 1)).cache
    merge([shard], tmp_path / "all.h5")
    one, two = read_cache(whole), read_cache(tmp_path / "all.h5")
    assert np.array_equal(one.embeddings, two.embeddings) and "shard" not in two.attributes


@pytest.mark.slow
def test_a_shard_may_lack_classes_and_images(tmp_path, smears):
    images = tmp_path / "images"
    for name, count in (("Benign", 3), ("Pro", 1)):
        (images / name).mkdir(parents=True)
        for file in sorted((smears / name).glob("*.jpg"))[:count]:
            shutil.copy(file, images / name)
    (images / "Benign" / "broken.jpg").write_text("no image")
    one = read_cache(extract(images, tmp_path / "one.h5", CONFIG).cache)
    done = [extract(images, tmp_path / f"{number}.h5", CONFIG, shard=(number, 5)) for number in range(1, 6)]
    assert sorted(part.images for part in done) == [0, 1, 1, 1, 1]
    assert extract(images, done[0].cache, CONFIG, shard=(1, 5)).computed == 0
    merge([part.cache for part in done], tmp_path / "all.h5")
    two = read_cache(tmp_path / "all.h5")
    assert np.array_equal(one.embeddings, two.embeddings) and np.array_equal(one.path, two.path)
    assert one.rejected == two.rejected


@pytest.mark.slow
def test_a_collection_without_a_usable_image_is_refused(tmp_path):
    for name in ("A", "B"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "broken.jpg").write_text(f"no image of {name}")
    shards = [extract(tmp_path / "images", tmp_path / f"{n}.h5", CONFIG, shard=(n, 2)).cache for n in (1, 2)]
    with pytest.raises(CacheError, match=r"No image of these shards can be used"):
        merge(shards, tmp_path / "all.h5")


def few(smears, folder, count):
    """A collection of so many images of each of two classes, 1.jpg to COUNT.jpg."""
    for name in ("Benign", "Pro"):
        (folder / "images" / name).mkdir(parents=True)
        for number, file in enumerate(sorted((smears / name).glob("*.jpg"))[:count]):
            shutil.copy(file, folder / "images" / name / f"{number + 1}.jpg")
    return folder / "images"


@pytest.mark.slow
def test_images_that_come_last_between_two_shards_are_noticed(tmp_path, smears):
    """Rows of the first shard stay as they are then, so that nothing but the listing tells."""
    images = few(smears, tmp_path, 3)
    first = extract(images, tmp_path / "1.h5", CONFIG, shard=(1, 2)).cache
    for number in (7, 8):
        shutil.copy(sorted((smears / "Pro").glob("*.jpg"))[number], images / "Pro" / f"{number}.jpg")
    second = extract(images, tmp_path / "2.h5", CONFIG, shard=(2, 2)).cache
    with pytest.raises(CacheError, match=r"of 6 images, and .* of 8: images were added"):
        merge([first, second], tmp_path / "all.h5")
    assert extract(images, first, CONFIG, shard=(1, 2)).computed == 1
    (images / "Pro" / "8.jpg").rename(images / "Pro" / "9.jpg")
    second = extract(images, second, CONFIG, shard=(2, 2)).cache
    with pytest.raises(CacheError, match="of other images than"):
        merge([first, second], tmp_path / "all.h5")
    assert extract(images, first, CONFIG, shard=(1, 2)).computed == 0
    merge([first, second], tmp_path / "all.h5")
    one, two = read_cache(tmp_path / "all.h5"), read_cache(extract(images, tmp_path / "one.h5", CONFIG).cache)
    assert np.array_equal(one.path, two.path)
    assert np.array_equal(one.embeddings, two.embeddings)


@pytest.mark.slow
def test_shards_with_other_sheets_are_refused_until_each_has_the_same(tmp_path, smears):
    images = few(smears, tmp_path, 3)
    names = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.jpg"))
    tables = {
        "patients": [f"{name},{name.split('/')[0]},P{row // 2}" for row, name in enumerate(names)],
        "renamed": [f"{name},{name.split('/')[0]} B-ALL,P{row // 2}" for row, name in enumerate(names)],
        "others": [f"{name},{name.split('/')[0]},Q{row // 2}" for row, name in enumerate(names)],
    }
    for name, lines in tables.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(["path,label,patient", *lines]) + "\n")
    first = extract(images, tmp_path / "1.h5", CONFIG, sheet=tmp_path / "patients.csv", shard=(1, 2)).cache
    for sheet in (None, tmp_path / "renamed.csv", tmp_path / "others.csv"):
        second = extract(images, tmp_path / "2.h5", CONFIG, sheet=sheet, shard=(2, 2)).cache
        with pytest.raises(CacheError, match=r"1\.h5 and .*2\.h5 are shards with other classes or columns"):
            merge([first, second], tmp_path / "all.h5")
    done = extract(images, tmp_path / "2.h5", CONFIG, sheet=tmp_path / "patients.csv", shard=(2, 2))
    assert done.computed == 0
    merge([first, second], tmp_path / "all.h5")
    one = read_cache(
        extract(images, tmp_path / "one.h5", CONFIG, sheet=tmp_path / "patients.csv").cache, embeddings=False
    )
    two = read_cache(tmp_path / "all.h5", embeddings=False)
    assert one.columns["patient"].tolist() == two.columns["patient"].tolist()
    assert "labelling" not in two.attributes


@pytest.mark.slow
def test_shards_of_a_collection_that_grew_are_named(tmp_path, smears):
    images = few(smears, tmp_path, 4)
    shards = [extract(images, tmp_path / f"{n}.h5", CONFIG, shard=(n, 2)).cache for n in (1, 2)]
    shutil.copy(sorted((smears / "Benign").glob("*.jpg"))[7], images / "Benign" / "0.jpg")
    with pytest.raises(CacheError, match=r"4 of its 4 belong to other shards now \(first: Benign/1\.jpg\).*prune=True"):
        extract(images, shards[0], CONFIG, shard=(1, 2))
    extract(images, shards[1], CONFIG, shard=(2, 2), prune=True)
    with pytest.raises(CacheError, match=r"1\.h5 is a shard of 8 images, and .*2\.h5 of 9.*some are in no shard"):
        merge(shards, tmp_path / "all.h5")
    extract(images, shards[0], CONFIG, shard=(1, 2), prune=True)
    merge(shards, tmp_path / "all.h5")
    one = read_cache(extract(images, tmp_path / "one.h5", CONFIG).cache)
    assert np.array_equal(one.embeddings, read_cache(tmp_path / "all.h5").embeddings)


@pytest.mark.slow
def test_a_shard_in_place_of_another_is_refused(smears, sheet, shards):
    with pytest.raises(CacheError, match="is shard 2 of 3, and shard 1 of 3 was asked for"):
        extract(smears, shards[1], CONFIG, sheet=sheet, shard=(1, 3))
    with pytest.raises(CacheError, match="no shard was asked for"):
        extract(smears, shards[1], CONFIG, sheet=sheet)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "message"), [((0, 2), "shard 2 is missing"), ((0, 0, 1, 2), "shard 1 is given twice")]
)
def test_missing_and_repeated_shards_are_named(tmp_path, shards, given, message):
    with pytest.raises(CacheError, match=message):
        merge([shards[i] for i in given], tmp_path / "all.h5")
    assert not list(tmp_path.glob("*merging*"))


def test_a_million_missing_shards_cost_nothing(tmp_path):
    from tests.made import clouds, write_cache

    paths = [write_cache(tmp_path / f"{n}.h5", *clouds(2, dim=4), shard=[n, 1_000_000]) for n in (2, 5)]
    with pytest.raises(CacheError) as caught:
        merge(paths, tmp_path / "all.h5")
    assert str(caught.value) == (
        "Got 2 caches of 1000000 shards: shards 1, 3, 4, 6, 7, 8, 9, 10, 11, 12 and 999988 more are missing. Give "
        "every shard once."
    )


def test_shards_of_other_shapes_are_refused(tmp_path):
    from tests.made import clouds, write_cache

    paths = [write_cache(tmp_path / f"{dim}.h5", *clouds(2, dim=dim)) for dim in (4, 5)]
    with pytest.raises(CacheError, match=r"different settings .*length"):
        merge(paths, tmp_path / "all.h5")


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


@pytest.mark.parametrize("shard", [(0, 3), (4, 3), (1, 1000), (1, 1_000_001)])
def test_numbers_that_are_no_shard_are_refused(tmp_path, smears, shard):
    with pytest.raises(ConfigError, match="expected I/N"):
        extract(smears, tmp_path / "c.h5", CONFIG, shard=shard)


@pytest.mark.slow
def test_the_commands(tmp_path, smears):
    options = ("--backbone", TINY, "--weights", "random", "--input-px", 64, "--precision", "fp32")
    for number in (1, 2):
        done = ball(
            "extract",
            smears,
            "--out",
            tmp_path / f"{number}.h5",
            "--shard",
            f"{number}/2",
            *options,
            before=TINY_DENSENET,
        )
        assert done.returncode == 0, done.stderr
    done = ball("merge", tmp_path / "1.h5", tmp_path / "2.h5", "--out", tmp_path / "all.h5", "--json")
    assert json.loads(done.stdout)["images"] == 48
    wrong = ball("extract", smears, "--out", tmp_path / "3.h5", "--shard", "3of2", *options, before=TINY_DENSENET)
    assert wrong.returncode == 2
    assert "expected I/N" in wrong.stderr


def test_one_cache_is_not_taken_for_the_letters_of_its_name(small_cache, tmp_path):
    for given in (str(small_cache), small_cache):
        with pytest.raises(CacheError, match="Got 1 cache, expected two or more shards"):
            merge(given, tmp_path / "all.h5")
