"""Two channels in one cache: computed or from twins, joined or one alone, and back again in a prediction."""

import shutil

import numpy as np
import pytest
from PIL import Image

from ball_features import ExtractConfig, FitConfig, extract, fit, read_cache
from ball_features.bundles.bundle import read_bundle
from ball_features.cache import choose_channels
from ball_features.cli.presets import PRESETS
from ball_features.deployment.predict import Predictor
from ball_features.errors import CacheError, ConfigError, DataError
from ball_features.extraction.segment import segment_folder

BOTH = ("original", "segmented")


def settings(**more):
    values = {
        "backbone": "mobilenet_v3_large",
        "weights": "random",
        "precision": "fp32",
        "dtype": "float32",
        "input_px": 64,
    }
    return ExtractConfig(**values | {"channels": BOTH} | more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, smears):
    """Original/ and Segmented/ side by side."""
    root = tmp_path_factory.mktemp("two")
    shutil.copytree(smears, root / "Original")
    segment_folder(root / "Original", root / "Segmented")
    return root


@pytest.fixture(scope="module")
def computed(tmp_path_factory, smears):
    out = tmp_path_factory.mktemp("channels") / "computed.h5"
    extract(smears, out, settings(views=2, twins="none"))
    return out


@pytest.mark.slow
def test_names_and_order(computed, smears, tmp_path):
    cache = read_cache(computed)
    assert cache.view == ("plain", "segmented:plain", "report-1", "segmented:report-1")
    assert cache.channels == BOTH
    assert cache.attributes["segmentation"] == "hsv"
    alone = tmp_path / "alone.h5"
    extract(smears, alone, settings(channels=("original",), views=2))
    assert np.allclose(read_cache(alone).embeddings, cache.embeddings[:, ::2], atol=1e-5)
    assert "channels" not in read_cache(alone).attributes


def test_joined_averaged_or_one_alone(computed):
    cache = read_cache(computed)
    joined = choose_channels(cache)
    assert joined.embeddings.shape == (48, 2, 1920)
    assert joined.embeddings.base is not None  # the same memory
    assert joined.view == ("plain", "report-1")
    assert (joined.embeddings[:, 1, 960:] == cache.embeddings[:, 3]).all()
    one = choose_channels(cache, ["segmented"])
    assert (one.embeddings == cache.embeddings[:, 1::2]).all()
    mean = choose_channels(cache, BOTH, "mean")
    assert np.allclose(mean.embeddings, (cache.embeddings[:, ::2] + cache.embeddings[:, 1::2]) / 2)
    with pytest.raises(ConfigError, match="no channel 'green'"):
        choose_channels(cache, ["green"])


def test_a_cache_of_one_channel_says_how_to_get_another(small_cache):
    with pytest.raises(ConfigError, match=r"Extract both: channels=\('original', 'segmented'\)"):
        fit(small_cache, FitConfig(channels=BOTH, models=("logistic",)))


@pytest.mark.slow
def test_twins_from_a_folder_agree_with_computed_ones(folder, computed, tmp_path):
    extract(folder, tmp_path / "twins.h5", settings(views=2))
    cache, other = read_cache(tmp_path / "twins.h5"), read_cache(computed)
    assert cache.attributes["segmentation"] == "twins"
    assert len(cache.twin_sha256) == 48
    assert np.allclose(cache.embeddings, other.embeddings, atol=1e-4)


@pytest.mark.slow
def test_a_cache_of_two_channels_is_not_one_of_one(computed, smears):
    before = computed.read_bytes()
    with pytest.raises(CacheError, match="other settings: channels"):
        extract(smears, computed, settings(channels=("original",), views=2))
    assert computed.read_bytes() == before


@pytest.mark.slow
def test_a_changed_twin_is_computed_again(folder, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(folder, root)
    out = tmp_path / "a.h5"
    extract(root, out, settings())
    twin = next((root / "Segmented").rglob("*.png"))
    Image.new("RGB", (224, 224), "white").save(twin)
    assert extract(root, out, settings()).computed == 1
    assert extract(root, out, settings()).computed == 0


@pytest.mark.slow
def test_a_missing_twin_is_a_rejected_file(folder, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(folder, root)
    next((root / "Segmented").rglob("*.png")).unlink()
    broken = sorted((root / "Segmented").rglob("*.png"))[-1]
    broken.write_bytes(b"no image")
    result = extract(root, tmp_path / "a.h5", settings())
    assert result.images == 46
    assert sorted(item.reason.split(";")[0] for item in result.rejected) == [
        "has no segmented twin in Segmented/",
        "its segmented twin is not an image, or of a kind that is not supported",
    ]
    with pytest.raises(DataError, match="No folder"):
        extract(root, tmp_path / "b.h5", settings(twins=str(tmp_path / "nowhere")))
    with pytest.raises(CacheError, match="other settings"):
        extract(root, tmp_path / "a.h5", settings(twins="none"))


@pytest.mark.slow
def test_fit_and_predict_with_both_channels(computed, smears, tmp_path):
    config = FitConfig(models=("logistic",), repeats=1, test_size=0.3, val_size=0.3, test_views="all")
    run = fit(computed, config, out_root=tmp_path, save="logistic")
    assert "original + segmented" in run.title
    predictor = Predictor(read_bundle(run.folder / "models" / "logistic"))
    assert predictor.caveat == ""
    files = sorted((smears / "Pro").iterdir())[:3]
    predictions, rejected = predictor(files)
    assert len(predictions) == 3
    assert not rejected
    cache = choose_channels(read_cache(computed))
    row = cache.path.tolist().index(f"Pro/{files[0].name}")
    from_cache = read_bundle(run.folder / "models" / "logistic").probability(cache.embeddings[row : row + 1])
    assert list(predictions[0].probability.values()) == pytest.approx(from_cache[0].tolist(), abs=1e-3)


def test_presets_name_settings_of_fit():
    for preset in PRESETS.values():
        assert FitConfig.from_mapping(preset.settings | {"head": {}}).channels[0] == "original"
