"""Training against groups: a planted shift is removed, and nothing is chosen on other than training groups."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from ball_features.models.ensemble import ViewEnsemble
from ball_features.models.group_effects import group_directions, group_weights
from ball_features.models.mlp import MLPHead
from ball_features.models.robust import GroupRobustDiscriminant, GroupRobustLogistic


@pytest.fixture(scope="module")
def shifted():
    """Two classes told apart by column 0, on slides that differ strongly, and with the class, in column 1."""
    rng = np.random.default_rng(0)
    X, y, group = [], [], []
    for number in range(12):
        label = number % 2
        cells = rng.normal(size=(60, 20))
        cells[:, 0] += 2.0 if label else -2.0
        cells[:, 1] += rng.normal(6 if label else -6, 6)
        X.append(cells)
        y += [label] * 60
        group += [number] * 60
    return np.concatenate(X).astype(np.float32), np.array(y), np.array(group)


@parametrize_with_checks([GroupRobustLogistic(), GroupRobustDiscriminant()])
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


def test_weights_by_hand():
    y = np.array([0, 0, 0, 0, 0, 1])
    group = np.array([0, 0, 0, 0, 1, 2])
    weight = group_weights(y, group)
    assert weight.mean() == pytest.approx(1)
    assert weight[:5].sum() == pytest.approx(weight[5])
    assert weight[4] / weight[0] == pytest.approx(2)  # root of 4 to 1


def test_the_direction_of_the_slides_is_found(shifted):
    X, y, group = shifted
    direction = group_directions(X, y, group, 1)
    assert direction.shape == (1, 20)
    assert abs(direction[0, 1]) > 0.98
    assert len(group_directions(X, y, np.zeros(len(y)), 3)) == 0


@pytest.mark.slow
def test_slides_left_out_are_recognised_better(shifted):
    X, y, group = shifted
    plain, robust = [], []
    for number in range(12):
        test = group == number
        plain.append(LogisticRegression().fit(X[~test], y[~test]).score(X[test], y[test]))
        model = GroupRobustLogistic(directions=(0, 1)).fit(X[~test], y[~test], groups=group[~test])
        robust.append(model.score(X[test], y[test]))
    assert np.isfinite(model.inner_accuracy_)
    assert np.mean(robust) > 0.95
    assert np.min(robust) > np.min(plain) + 0.5


def test_options_are_chosen_by_the_accuracy_on_groups_of_several_classes():
    rng = np.random.default_rng(0)
    y, group = np.arange(400) % 2, np.arange(400) // 2 % 4
    X = (rng.normal(size=(400, 5)) + 1.0 * y[:, None] * (np.arange(5) == 0)).astype(np.float32)
    model = GroupRobustLogistic(directions=(0, 1)).fit(X, y, groups=group)
    own = GroupRobustLogistic(directions=(model.chosen_["directions"],), balance=(model.chosen_["balance"],))
    each = [
        own.fit(X[group != g], y[group != g], groups=group[group != g]).score(X[group == g], y[group == g])
        for g in range(4)
    ]
    assert model.inner_accuracy_ == pytest.approx(np.mean(each))


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({"directions": (3,), "balance": (True,)}, (0.01, 3, True)),
        ({"C": (0.1, 1.0), "directions": (2, 1), "balance": (False, True)}, (0.1, 2, False)),
        ({"C": (0.1, 1.0)}, (0.1, 0, True)),  # a direction that nothing was left out to judge is not removed
    ],
)
def test_candidates_that_cannot_be_judged_are_still_the_users(shifted, options, chosen):
    X, y, group = shifted
    few = np.flatnonzero((group < 4) & (np.arange(len(y)) % 60 < 40))  # two groups of 40 a class: none can be left out
    model = GroupRobustLogistic(**options).fit(X[few], y[few], groups=group[few])
    assert tuple(model.chosen_.values()) == chosen
    assert np.isnan(model.inner_accuracy_)


def test_weights_are_not_taken_for_groups(shifted):
    X, y, _ = shifted
    for model in (GroupRobustLogistic(), GroupRobustDiscriminant(), ViewEnsemble(), MLPHead()):
        with pytest.raises(TypeError, match="positional"):
            model.fit(X, y, np.ones(len(y)))


def test_without_groups_it_is_a_logistic_regression(shifted):
    X, y, _ = shifted
    model = GroupRobustLogistic(C=(0.01,)).fit(X, y)
    assert model.chosen_["directions"] == 0
    assert model.score(X, y) > 0.9


def test_a_discriminant_without_the_slides(shifted):
    X, y, group = shifted
    X = np.hstack([X, np.zeros((len(X), 5), dtype=np.float32)])  # a short embedding, filled up
    score = []
    for number in range(12):
        test = group == number
        model = GroupRobustDiscriminant(1).fit(X[~test], y[~test], groups=group[~test])
        score.append(model.score(X[test], y[test]))
    assert np.mean(score) > 0.95
    assert len(model.used_) == 20
    assert np.allclose(model.to_pipeline().predict_proba(X), model.predict_proba(X), atol=1e-6)
