import json

import numpy as np
import pytest
from PIL import Image

from ball_features.dataset.synthetic import CLASSES, draw_smears
from ball_features.errors import ConfigError


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(float)


@pytest.mark.slow
def test_the_same_seed_draws_the_same_bytes(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        draw_smears(tmp_path / name, per_class=2, seed=seed, duplicates=1, shared_fields=1, overlay_share=0.5)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.jpg"))
    assert len(files) == 4 * 4
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    assert not any((tmp_path / "a" / f).read_bytes() == (tmp_path / "c" / f).read_bytes() for f in files)


@pytest.mark.slow
def test_what_is_planted_is_there(tmp_path):
    truth = draw_smears(
        tmp_path, per_class=6, duplicates=1, near_duplicates=2, shared_fields=2, overlay_share=0.7, series=2
    )
    assert set(truth.label.values()) == set(CLASSES)
    assert len(truth.label) == 4 * (6 + 1 + 2 + 2)
    for a, b in truth.duplicates:
        assert (tmp_path / a).read_bytes() == (tmp_path / b).read_bytes()
    for a, b, dx, dy in truth.shared_fields:
        first, second = pixels(tmp_path / a), pixels(tmp_path / b)
        rows = slice(max(dy, 0), 224 + min(dy, 0)), slice(max(-dy, 0), 224 + min(-dy, 0))
        columns = slice(max(dx, 0), 224 + min(dx, 0)), slice(max(-dx, 0), 224 + min(-dx, 0))
        one, two = first[rows[0], columns[0]], second[rows[1], columns[1]]
        assert np.median(np.abs(one - two)) < 4  # a scale bar may lie on one of them
    assert len(set(truth.series.values())) == 8
    assert truth.overlay
    stored = json.loads((tmp_path / "truth.json").read_text())
    assert stored["overlay"] == truth.overlay


@pytest.mark.slow
def test_mean_colour_does_not_separate_the_classes(tmp_path):
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.model_selection import cross_val_score

    truth = draw_smears(tmp_path, per_class=30, seed=2)
    X = np.array([pixels(tmp_path / path).mean((0, 1)) for path in truth.label])
    score = cross_val_score(ExtraTreesClassifier(200, random_state=0), X, list(truth.label.values()), cv=5).mean()
    assert score < 0.65


def test_out_of_range(tmp_path):
    with pytest.raises(ConfigError, match="per_class=0"):
        draw_smears(tmp_path, per_class=0)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"size_px": 64.5}, {"per_class": 0}, {"per_class": "2"}])
def test_settings_that_are_none_are_refused_before_a_folder_is_made(tmp_path, wrong):
    with pytest.raises(ConfigError, match="expected whole numbers"):
        draw_smears(tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()
