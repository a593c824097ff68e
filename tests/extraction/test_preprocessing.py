"""One record says how a picture becomes an embedding; caches and bundles keep it and give it back."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ball_features.cache import read_cache
from ball_features.config import ExtractConfig
from ball_features.errors import ConfigError
from ball_features.extraction.backbones import BACKBONES
from ball_features.extraction.overlay_mask import mask_tensor, pack_mask, unpack_mask
from ball_features.extraction.preprocessing import Preprocessing
from ball_features.extraction.readouts import READOUTS

OLD = Path(__file__).parents[1] / "data" / "v0.1.0"
DIGESTS = [hashlib.sha256(bytes([row])).hexdigest() for row in range(2)]
SETTINGS = {
    "plain": {"views": 1},
    "random weights": {"views": 1, "weights": "random", "seed": 4},
    "drawn": {"views": 4, "recipe": "report", "seed": 3},
    "in turn": {"recipe": "zoom,blur+grey", "views": 6},
    "robust": {"recipe": "robust"},
    "part of robust": {"recipe": "robust", "views": 3},
    "channels": {"channels": ("original", "segmented")},
    "channels of views": {"channels": ("original", "segmented"), "recipe": "grey"},
    "others": {"backbone": "vgg16", "input_px": 96, "normalize": "unit", "dtype": "float32", "precision": "fp32"},
}


def made(change, dim=0):
    config = ExtractConfig(**{"backbone": "densenet121"} | change)
    wanted = Preprocessing.from_config(config)
    mask = pack_mask(np.eye(wanted.backbone.input_px, dtype=bool)) if wanted.plan.needs_mask else ""
    precision = "bf16" if wanted.precision == "auto" else wanted.precision
    backbone = dataclasses.replace(wanted.backbone, dim=dim or wanted.backbone.dim)
    return dataclasses.replace(
        wanted, backbone=backbone, weights_sha256="f" * 64, overlay_mask=mask, precision=precision
    )


@pytest.mark.parametrize("change", SETTINGS.values(), ids=SETTINGS)
def test_attributes_give_the_record_back(change):
    record = made(change)
    attributes = json.loads(json.dumps(record.to_attributes()))
    assert Preprocessing.from_attributes(attributes) == record
    assert record.differences(attributes) == []
    assert Preprocessing.from_attributes(attributes).fingerprint == record.fingerprint


@pytest.mark.parametrize("change", SETTINGS.values(), ids=SETTINGS)
def test_a_bundle_gives_the_views_back_that_it_tests_on(change):
    record = made(change)
    record = dataclasses.replace(record, combine="concat" if len(record.channels) > 1 else "", dtype="float16")
    for indices in ([0], [len(record.plan) - 1], list(range(len(record.plan)))):
        own = record.select(indices)
        assert Preprocessing.from_facts(json.loads(json.dumps(own.to_facts()))) == own


def test_a_fingerprint_is_the_digest_of_every_setting_by_its_name():
    """Written out: a cache of 0.1.0 has these names, and must be found again by this digest."""
    record = made({"recipe": "report", "views": 3, "seed": 3, "precision": "fp32"})
    values = {
        "backbone": "densenet121", "weights_sha256": "f" * 64, "pooling": "relu, global average",
        "resize": "224 px, bilinear, antialiased", "normalize": "imagenet", "views": 3, "recipe": "report",
        "recipe_version": 2, "seed": 3, "dtype": "float16", "precision": "fp32",
    }  # fmt: skip
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    assert record.fingerprint == hashlib.sha256(text.encode()).hexdigest()


def test_settings_of_the_run_change_no_fingerprint():
    base = {"views": 1}
    same = [{"device": "cpu"}, {"batch_size": 8}, {"seed": 3}, {"limit": 9}]  # no seed without a random view
    assert {made(base | change).fingerprint for change in same} == {made(base).fingerprint}
    views = {"views": 2}
    other = [views, views | {"seed": 3}, base | {"normalize": "unit"}, base | {"dtype": "float32"}]
    assert len({made(change).fingerprint for change in [base, *other]}) == 5


@pytest.mark.parametrize("name", ["plain", "views", "seeded", "channels", "interrupted"])
def test_a_cache_of_0_1_0_has_an_equal_fingerprint(name):
    cache = read_cache(OLD / f"{name}.h5", embeddings=False)
    record = Preprocessing.from_attributes(cache.attributes)
    assert record.fingerprint == cache.fingerprint
    assert record.differences(cache.attributes) == []
    assert cache.view == record.plan.names(record.channels)
    assert cache.embeddings.shape[1:] == (record.passes, record.backbone.dim)
    assert {key: cache.attributes.get(key) for key in record.to_attributes()} == record.to_attributes()


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"dtype": "float32"}, {"normalization": "unit"}, {"precision": "fp16"}, {"overlay_mask": "1:gA=="}],
    ids=lambda change: next(iter(change)),
)
def test_each_setting_changes_the_fingerprint(change):
    record = made({"recipe": "report", "views": 3})
    assert dataclasses.replace(record, **change).fingerprint != record.fingerprint


def test_settings_that_differ_are_named():
    record = made({"recipe": "robust"})
    attributes = record.to_attributes()
    other = dataclasses.replace(record, weights_sha256="e" * 64, precision="auto", overlay_mask="")
    assert other.differences(attributes) == [f"weights_sha256 (cache: {'f' * 64}, asked for: {'e' * 64})"]
    two = attributes | {"channels": ["original", "segmented"], "segmentation": "hsv"}
    assert [text.split()[0] for text in record.differences(two)] == ["channels", "segmentation"]


def test_bundles_of_earlier_versions_lack_some_keys():
    facts = made({"recipe": "grey"}).select([1]).to_facts()
    for key in ("dim", "input_px", "seed", "pooling", "precision"):
        old = {name: value for name, value in facts.items() if name != key}
        if key == "precision":
            with pytest.raises(KeyError):
                Preprocessing.from_facts(old)
        else:
            assert Preprocessing.from_facts(old) == Preprocessing.from_facts(facts)


def embedded(record, images, calls=None):
    """Embeddings by a network that gives the mean of R, G and B."""

    def read(pixels, readouts, nuclei):
        if calls is not None:
            calls.append(pixels)
        return [pixels.mean((2, 3))] * len(readouts)

    return record.embed(images, DIGESTS, read)


@pytest.mark.parametrize("segmented", [None, 0.25], ids=["computed", "files"])
def test_channels_are_kept_apart_or_joined(segmented):
    record = dataclasses.replace(made(SETTINGS["channels of views"], dim=5), normalization="unit")
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    if segmented is not None:
        images = torch.cat([images, torch.full_like(images, segmented)], 1)
    apart = embedded(record, images)  # view by view, its channels one behind the other
    assert apart.shape == (2, 4, 5)
    assert torch.allclose(apart[:, 0, :3], images[:, :3].mean((2, 3)))
    assert apart[..., 3:].abs().sum() == 0
    if segmented is not None:
        assert torch.allclose(apart[:, 1, :3], torch.tensor(segmented))
    joined = embedded(dataclasses.replace(record, combine="concat"), images)
    assert torch.equal(joined, apart.view(2, 2, 10))
    mean = embedded(dataclasses.replace(record, combine="mean"), images)
    assert torch.allclose(mean, apart.view(2, 2, 2, 5).mean(2))
    alone = embedded(dataclasses.replace(record, combine="concat", channels=("segmented",)), images)
    assert torch.equal(alone, apart[:, 1::2])


def test_a_selected_view_is_the_same_alone():
    record = made({"recipe": "zoom,blur", "views": 5}, dim=3)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    whole = embedded(record, images)
    for index in range(5):
        assert torch.equal(embedded(record.select([index]), images)[:, 0], whole[:, index])


def test_fixed_views_of_equal_pixels_share_a_pass():
    calls = []
    record = made({"recipe": "grey@block2,soft,grey@block3"}, dim=3)
    embedded(record, torch.rand(2, 3, 64, 64), calls)
    assert len(calls) == 3


def test_masks_are_packed_and_read_back():
    mask = np.random.default_rng(0).random((37, 37)) < 0.1
    assert np.array_equal(unpack_mask(pack_mask(mask)), mask)
    assert np.array_equal(mask_tensor(pack_mask(mask), "cpu"), mask)
    assert unpack_mask(pack_mask(np.zeros((8, 8), dtype=bool))) is None
    assert mask_tensor("", "cpu") is None


def test_a_backbone_says_which_maps_it_has():
    with pytest.raises(ConfigError, match=r"no feature maps for the readout block2 in .*use a DenseNet"):
        made({"backbone": "vgg16", "recipe": "grey@block2"})
    for name, backbone in BACKBONES.items():
        readable = all(readout.block in backbone.maps for readout in READOUTS.values())
        assert readable == (backbone.engine == "densenet"), name
