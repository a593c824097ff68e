"""Adaptation of models to the site that is tested: what it uses, what it changes, and where it is off."""

import dataclasses

import numpy as np
import pytest

from ball_features.config import FitConfig
from ball_features.dataset.grouping import Grouping
from ball_features.dataset.splits import Split
from ball_features.errors import ConfigError
from ball_features.evaluation.fit_split import fit_task
from ball_features.evaluation.site_shift import sites_of_one_class
from ball_features.evaluation.tasks import FitTask, Images
from ball_features.evaluation.views import Views
from ball_features.models.base import ViewRole
from ball_features.models.registry import MODELS
from ball_features.runs.sites import centred_note, choose_sites

SITES = np.array(["a", "b", "c"])


def task(name="logistic", adapt="balanced", seed=0, shares=(0.7, 0.2, 0.1), apart=4.0):
    """Three sites with offsets far larger than the classes are apart; the last one is tested."""
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(3), 120)
    codes = np.concatenate([np.tile(np.arange(3), 80), rng.choice(3, 120, p=shares)])
    offsets = rng.normal(size=(3, 12)) * apart
    X = 4 * np.eye(3, 12)[codes] + offsets[site] + rng.normal(size=(360, 12))
    order = rng.permutation(240)
    split = Split(0, 0, np.sort(order[:200]), np.sort(order[200:]), np.arange(240, 360), "c")
    images = Images(
        X[:, None].astype(np.float32), codes, 3, SITES[site], None, None if adapt == "none" else SITES[site]
    )
    roles = (ViewRole("plain", "plain"),) if MODELS[name].by_view else ()
    return FitTask(MODELS[name], split, images, Views((0,), (0,)), (), roles, adapt, 0, FitConfig().head, True)


def accuracy(one):
    fitted = fit_task(one)
    assert not hasattr(fitted, "reason"), fitted
    return float((fitted.probability.argmax(1) == one.images.codes[one.split.test]).mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["logistic", "lda", "robust", "robust-logistic", "mlp"])
def test_every_model_can_be_adapted(name):
    plain, adapted = accuracy(task(name, "none")), accuracy(task(name))
    assert adapted > 0.9
    assert adapted > plain or name == "lda"  # whose covariance knows the direction of the sites already


def test_labels_of_the_site_tested_are_not_used():
    one = task()
    other = dataclasses.replace(one, images=dataclasses.replace(one.images, codes=one.images.codes.copy()))
    other.images.codes[one.split.test] = np.random.default_rng(1).integers(3, size=120)
    np.testing.assert_array_equal(fit_task(one).probability, fit_task(other).probability)


def test_embeddings_stay_as_they_are():
    one = task()
    before = one.images.numbers.copy()
    fitted = fit_task(one)
    np.testing.assert_array_equal(one.images.numbers, before)
    assert fitted.adapter.sites_.tolist() == ["a", "b"]


def test_a_batch_of_one_class_is_told():
    fitted = fit_task(task("lda", adapt="auto", shares=(1.0, 0.0, 0.0), apart=0.3))
    assert len(fitted.remarks) == 1
    assert fitted.remarks[0].startswith("Not adapted to c: ") and "look like one class" in fitted.remarks[0]
    assert (fitted.probability.argmax(1) == 0).mean() > 0.9


def test_where_it_is_off():
    label = np.array(["x", "y"] * 4)
    single = np.where(label == "x", "a", "b")
    split = Split(0, 0, np.arange(6), np.arange(0), np.arange(6, 8))
    assert sites_of_one_class(single, label, [split]) == ["a", "b"]
    assert sites_of_one_class(np.repeat(["a", "b"], 4), label, [split]) == []
    assert choose_sites(FitConfig(), None, [split], label) == (None, [])
    grouping, notes = choose_sites(FitConfig(adapt="auto"), None, [split], label)
    assert grouping is None and "no groups file with a column site" in notes[0]
    own = Grouping("site", single, single, None, None, "", site=single, adapted_site=single)
    grouping, notes = choose_sites(FitConfig(adapt="auto"), own, [split], label)
    assert grouping.adapted_site is None and grouping.site is single and "a, b are of one class" in notes[0]
    mixed = dataclasses.replace(own, adapted_site=np.repeat(["a", "b"], 4))
    assert choose_sites(FitConfig(adapt="auto"), mixed, [split], label)[0] is mixed
    with pytest.raises(ConfigError, match="adapt='mean'"):
        choose_sites(FitConfig(adapt="mean"), None, [split], label)


def test_it_is_said_where_the_images_tested_centre_themselves():
    site = np.repeat(["H0", "H1", "H2"], 4)
    own = Grouping("site", site, site, None, site, "")
    rows, config = np.arange(12), FitConfig(center="site")
    left_out = [Split(0, fold, rows[rows // 4 != fold], rows[:0], rows[rows // 4 == fold]) for fold in range(3)]
    drawn = Split(0, 0, rows[rows % 4 > 0], rows[:0], rows[rows % 4 == 0])
    (note,) = centred_note(config, own, [*left_out, drawn])
    assert note.startswith("Centred by site: 3 of 4 test sets have values that training lacks.")
    assert not centred_note(config, own, [drawn])
    assert not centred_note(FitConfig(), dataclasses.replace(own, center=None), left_out)
    assert not centred_note(FitConfig(), None, left_out)
