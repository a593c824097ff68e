"""Attributes and checksums of caches from strangers: each value is read, or refused in words."""

import shutil
from dataclasses import replace
from itertools import product

import h5py
import numpy as np
import pytest

from ball_features.cache import CacheWriter, choose_channels, create_cache, merge, read_cache, verify_cache
from ball_features.cache.attributes import fault_of_attributes
from ball_features.cache.checksums import seal
from ball_features.cli.screen import print_json
from ball_features.config import ExtractConfig
from ball_features.dataset.manifest import scan
from ball_features.errors import BallError, CacheError
from ball_features.extraction.preprocessing import Preprocessing
from ball_features.extraction.update import Request, plan_update
from ball_features.reporting.inspection import describe, render_contents
from tests.cache.test_checksums import COUNT, contents, numbers
from tests.cache.test_strangers import attribute, put


@pytest.fixture
def path(tmp_path):
    create_cache(tmp_path / "a.h5", contents())
    return tmp_path / "a.h5"


ODD = {
    "text": "x",
    "empty": "",
    "one": "json:[1]",
    "none": "json:[]",
    "object": "json:{}",
    "json text": 'json:"x"',
    "texts": 'json:["a", "b"]',
    "null": "json:[null, 2]",
    "only null": "json:null",
    "infinite": "json:[1e400, 2]",
    "endless": "json:1e400",
    "json number": "json:5",
    "nested": "json:[[1], 2]",
    "deep": "json:" + "[" * 5000,
    "three": "json:[1, 2, 3]",
    "downwards": "json:[2, 1]",
    "zero": "json:[0, 1]",
    "truths": "json:[true, true]",
    "halves": "json:[1.0, 2.0]",
    "many shards": "json:[1, 2000000000]",
    "digits": "json:" + "9" * 5000,
    "hundred digits": "json:" + "9" * 100,
    "text of text": 'json:"json:{"',
    "zero byte": r'json:"a\u0000b"',
    "broken": "json:{",
    "true": True,
    "number": 5,
    "minus": -1,
    "huge": 2**63 - 1,
    "not a number": np.nan,
    "bytes": np.bytes_(b"\xff"),
    "void": h5py.Empty("f4"),
}
NAMES = [
    "backbone", "ball_version", "batch_size", "channels", "channels_used", "combine", "created", "decoder",
    "deviation_cosine", "deviation_images", "deviation_relative", "device", "dtype", "fingerprint", "images",
    "input_px", "normalize", "overlay_mask", "pass", "pooling", "precision", "recipe", "recipe_version", "resize",
    "schema_version", "seed", "segmentation", "shard", "versions", "views", "weights", "weights_sha256", "another",
]  # fmt: skip


def refusal(call, *given, **options):
    """What a call says where it refuses; "" where it does not. No other exception is one of ours."""
    try:
        call(*given, **options)
    except BallError as error:
        return str(error)
    return ""


def settings_of(attributes):
    return Preprocessing.from_attributes(attributes).to_config()


def resealed(path, change):
    """Change a cache as its maker could, who can compute the seal anew."""
    with h5py.File(path, "r+") as file:
        change(file)
    with h5py.File(path, "r+") as file:
        file["checksums/seal"][:] = np.frombuffer(seal(file, path), np.uint8)


@pytest.fixture(scope="module")
def collection(smears):
    return scan(smears)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_attribute_of_any_kind_is_read_or_refused(tmp_path, small_cache, collection, name):
    """By what reads a cache, shows it, goes on with it and merges it."""
    sound, known = small_cache.read_bytes(), read_cache(small_cache).attributes
    path, twin = tmp_path / "a.h5", tmp_path / "b.h5"
    own = Preprocessing.from_attributes(known)
    whole = Request(path, collection, ExtractConfig(device="cpu"), own)
    requests = [whole, replace(whole, shard=(1, 2))] if name == "shard" else [whole]
    shutil.copy(small_cache, path)
    assert not refusal(plan_update, whole)
    for value in ODD.values():
        path.write_bytes(sound)
        resealed(path, lambda file, value=value: file.attrs.__setitem__(name, value))
        try:
            cache, said = read_cache(path), ""
        except BallError as error:
            cache, said = None, str(error)
        assert not said or (str(path) in said and len(said) < 1000)
        assert refusal(verify_cache, path) == said
        if cache is None:
            refusal(plan_update, whole, repair=True)
            continue
        found = describe(cache, path)
        str(render_contents(found))
        print_json(found)
        choose_channels(cache)
        refusal(settings_of, found.provenance)
        twin.write_bytes(path.read_bytes())
        refusal(merge, [path, twin], tmp_path / "all.h5", overwrite=True)
        for repair, request in product((False, True), requests):
            refusal(plan_update, request, repair=repair)


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_shard_is_refused_by_name(path, kind):
    resealed(path, attribute("shard", ODD[kind]))
    with pytest.raises(CacheError) as caught:
        read_cache(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 1000
    if kind not in ("deep", "digits", "broken"):  # no JSON
        assert "the attribute shard is" in str(caught.value)


ROWS_CHANGED = {
    "three": put("checksums/rows", data=np.zeros(3, "u4")),
    "more": put("checksums/rows", data=np.ones(COUNT + 16, "u4")),
    "none": put("checksums/rows", data=np.zeros(0, "u4")),
    "a table": put("checksums/rows", data=np.ones((COUNT, 2), "u4")),
    "one": put("checksums/rows", data=np.uint32(1)),
    "missing": lambda file: file["checksums"].__delitem__("rows"),
    "no seal": lambda file: file["checksums"].__delitem__("seal"),
    "a long seal": put("checksums/seal", data=np.zeros(33, "u1")),
    "a seal of one": put("checksums/seal", data=np.uint8(1)),
    "a list for timing": put("checksums/timing", data=np.ones(2, "u4")),
    "a list for all": put("checksums", data=np.ones(COUNT, "u4")),
}


@pytest.mark.slow
@pytest.mark.parametrize("computed", [True, False])
@pytest.mark.parametrize("kind", ROWS_CHANGED)
def test_checksums_of_another_length_are_damage(path, kind, computed):
    if computed:
        with CacheWriter(path) as writer:
            writer.write(np.arange(COUNT), *numbers(np.arange(COUNT)))
    with h5py.File(path, "r+") as file:
        ROWS_CHANGED[kind](file)
    if kind not in ("no seal", "a long seal", "a seal of one", "a list for all"):
        resealed(path, lambda file: None)
    found = verify_cache(path)
    assert found.checked and not found.sound
    if kind in ("three", "more", "none", "a table", "one", "missing"):
        assert len(found.damaged) == COUNT * computed
    if kind != "a list for timing":
        assert not found.index
        with pytest.raises(CacheError, match="is damaged"):
            read_cache(path, embeddings=False)
    create_cache(path, contents(), source=path, repair=True)
    assert verify_cache(path).sound
    kept = kind in ("no seal", "a long seal", "a seal of one", "a list for timing")
    assert read_cache(path).committed.sum() == COUNT * (computed and kept)


@pytest.mark.parametrize("recipe", ["plain", "grey", "grey+soft,haematoxylin@block2", "fields", "robust", "report"])
def test_what_this_version_writes_is_no_fault(recipe):
    config = ExtractConfig(recipe=recipe, weights="random", channels=("original", "segmented"), precision="fp32")
    own = Preprocessing.from_config(config).to_attributes()
    assert fault_of_attributes(own) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_attribute_is_refused_before_it_is_written_or_read_again(tmp_path, name):
    path = tmp_path / "a.h5"
    values = [
        *(value for value in ODD.values() if not isinstance(value, str)),
        *("x", "", "json:[1]", "json:{", "a\0b", [1], [], {}, {"a": 1}, [1, 2], [2, 1], ["original"], [["a"]], None),
        *(float("inf"), 10**30, "\ud800", object(), np.zeros(2), {"a": object()}),
    ]
    for value in values:
        path.unlink(missing_ok=True)
        try:
            create_cache(path, contents(attributes=contents().attributes | {name: value}))
        except CacheError as error:
            assert str(path) in str(error)
            assert not list(tmp_path.iterdir())
            continue
        read_cache(path)


def test_a_cache_without_a_needed_attribute_is_not_written(tmp_path):
    for name in contents().attributes:
        own = {key: value for key, value in contents().attributes.items() if key != name}
        with pytest.raises(CacheError, match=f"no version could read it: it lacks the attribute {name}"):
            create_cache(tmp_path / "a.h5", contents(attributes=own))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("views", 3, "the attribute views is 3, and embeddings has 2 for 1 channels"),
        ("views", 1, "the attribute views is 1, and embeddings has 2 for 1 channels"),
        ("dtype", "float32", "the attribute dtype is float32, and embeddings is float16"),
    ],
)
def test_attributes_that_contradict_the_embeddings(path, tmp_path, name, value, said):
    resealed(path, attribute(name, value))
    with pytest.raises(CacheError, match=said):
        read_cache(path)
    with pytest.raises(CacheError, match=said):
        create_cache(tmp_path / "b.h5", contents(attributes=contents().attributes | {name: value}))


def test_views_are_counted_for_each_channel(tmp_path):
    own = contents().attributes | {"views": 1, "channels": ["original", "segmented"], "dtype": "float16"}
    create_cache(tmp_path / "a.h5", contents(attributes=own))
    assert read_cache(tmp_path / "a.h5").channels == ("original", "segmented")
