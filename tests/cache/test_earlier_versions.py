"""Files of 0.1.0 are read, resumed and used.

`tests/data/v0.1.0` was made by that version from drawn smears, `draw_smears(per_class=4, seed=2)`: `extract` with the
configuration below, `fit` of logistic with test_views="all", and `predict` in fp32 (`predictions.json`, by image).
"""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ball_features import ExtractConfig, Predictor, draw_smears, extract, read_bundle, read_cache
from ball_features.cache import choose_channels
from ball_features.errors import CacheError
from ball_features.extraction.preprocessing import Preprocessing

OLD = Path(__file__).parents[1] / "data" / "v0.1.0"
CONFIG = ExtractConfig(
    backbone="densenet121", weights="random", recipe="mask-overlay+grey@block2-nuclei,cells",
    channels=("original", "segmented"), twins="none", precision="fp32", seed=3,
)  # fmt: skip


@pytest.fixture
def old_cache(tmp_path):
    path = tmp_path / "old.h5"
    path.write_bytes(gzip.decompress((OLD / "cache.h5.gz").read_bytes()))
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old") / "images"
    draw_smears(folder, per_class=4, seed=2)
    return folder


def test_a_cache_is_read_with_an_equal_fingerprint(old_cache):
    cache = read_cache(old_cache)
    record = Preprocessing.from_attributes(cache.attributes)
    assert record.fingerprint == cache.fingerprint
    assert record.differences(cache.attributes) == []
    assert record.plan.recipe == CONFIG.recipe
    assert cache.view == record.plan.names(record.channels)
    assert cache.embeddings.shape == (16, record.passes, record.dim)
    own = {key: value for key, value in record.to_attributes().items() if cache.attributes.get(key) != value}
    assert own == {}


def test_a_cache_is_resumed_and_extended(old_cache, images, tmp_path):
    before = read_cache(old_cache)
    folder = shutil.copytree(images, tmp_path / "images")
    if sorted(before.path.tolist()) != sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.jpg")):
        pytest.skip("the smears are drawn under other names")
    more = next(folder.rglob("*.jpg"))
    shutil.copy(more, more.with_name("one-more.jpg"))
    more.with_name("one-more.jpg").write_bytes(more.read_bytes() + b"\0")  # another file, the same pixels
    done = extract(folder, old_cache, CONFIG)
    after = read_cache(old_cache)
    assert after.complete
    assert after.fingerprint == before.fingerprint
    rows = {path: row for row, path in enumerate(after.path.tolist())}
    for row, (path, digest) in enumerate(zip(before.path.tolist(), before.sha256.tolist(), strict=True)):
        if after.sha256[rows[path]] == digest:
            assert np.array_equal(after.embeddings[rows[path]], before.embeddings[row])
    if set(before.sha256) <= set(after.sha256):  # the same JPEG encoder
        assert done.computed == 1
    name = more.relative_to(folder).as_posix()
    added = name.rpartition("/")[0] + "/one-more.jpg"
    close = np.isclose(after.embeddings[rows[added]], after.embeddings[rows[name]], rtol=2e-2, atol=2e-3)
    # Drawn parameters follow from the content's hash, and these views draw nothing.
    assert close.all()


def test_a_cache_of_other_settings_is_refused(old_cache, images):
    for change, named in (({"recipe": "grey,cells"}, "recipe"), ({"channels": ("original",)}, "channels")):
        with pytest.raises(CacheError, match=f"other settings: .*{named} "):
            extract(images, old_cache, ExtractConfig(**CONFIG.to_dict() | change))


def test_a_bundle_predicts_what_it_predicted(old_cache, images):
    bundle = read_bundle(OLD / "bundle")
    preprocessing = bundle.facts.preprocessing
    assert (preprocessing.combine, preprocessing.channels) == ("concat", ("original", "segmented"))
    assert preprocessing.plan.indices == [0, 1, 2]
    cache = choose_channels(read_cache(old_cache))
    probability = bundle.probability(cache.embeddings)
    expected = json.loads((OLD / "predictions.json").read_text(encoding="utf-8"))
    rows = {path: row for row, path in enumerate(cache.path.tolist())}
    for path, own in expected.items():
        assert np.allclose(probability[rows[path]], own, atol=2e-2)  # stored in half precision
    predictor = Predictor(bundle, device="cpu", precision="fp32")
    found, _ = predictor([images / path for path in expected])
    for item, own in zip(found, expected.values(), strict=True):
        assert np.allclose(list(item.probability.values()), own, atol=1e-4)
