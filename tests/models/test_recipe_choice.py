"""The model `robust`: what it chooses, and that it answers as its parts do."""

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ball_features.models.base import ViewRole
from ball_features.models.discriminant import BalancedDiscriminant
from ball_features.models.recipe_choice import RecipeChoice

ROLES = (
    ViewRole("plain", "plain"),
    ViewRole("soft-1", "fields", "soft", True),
    ViewRole("crop@block2-2", "cells", "crop"),
    ViewRole("crop@block3-3", "cells", "crop"),
)


def images(groups=4, each=60, plain_shift=4.0, cell_shift=0.0, seed=0):
    """Views in which the class lies in the first columns; a group's shift hides it in the plain view or in cells."""
    rng = np.random.default_rng(seed)
    y = np.tile(np.arange(3), groups * each // 3)
    group = np.repeat(np.arange(groups), each)
    X = rng.normal(size=(len(y), 4, 10)).astype(np.float32)
    X[:, :, :3] += 3 * np.eye(3)[y][:, None]
    shift = rng.normal(size=(groups, 10))
    X[:, :2] += plain_shift * shift[group][:, None]
    X[:, 2:] += cell_shift * shift[group][:, None]
    return X, y, group


def test_it_chooses_what_holds_on_groups_left_out():
    X, y, group = images()
    model = RecipeChoice(ROLES).fit(X, y, groups=group)
    assert model.chosen_ == "cells"
    assert model.scores_["cells"] > model.scores_["plain"] + 0.1
    assert set(model.scores_) == {"plain", "fields", "cells", "all", "views-0.1", "views-1"}


def test_plain_is_kept_where_nothing_is_better():
    X, y, group = images(plain_shift=0.0)
    X[:, 1:] = X[:, :1]
    model = RecipeChoice(ROLES).fit(X, y, groups=group)
    assert model.chosen_ == "plain"
    own = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200, tol=1e-3)).fit(X[:, 0], y)
    np.testing.assert_allclose(model.predict_proba(X), own.predict_proba(X[:, 0]), atol=1e-6)


def test_an_average_of_logistic_regressions_is_chosen_where_it_holds_best():
    X, y, group = images(groups=8, each=90, plain_shift=0.0)
    rng = np.random.default_rng(1)
    for view in (0, 1):  # each view shows another half of the columns, so that both together tell most
        X[:, view] = rng.normal(size=X[:, view].shape)
        X[:, view, 3 * view : 3 * view + 3] += 1.5 * np.eye(3)[y]
    model = RecipeChoice(ROLES[:2]).fit(X[:, :2], y, groups=group)
    assert model.chosen_ in ("views-0.1", "views-1")
    strength = float(model.chosen_.removeprefix("views-"))
    logs = 0
    for view in (0, 1):
        own = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=200, tol=1e-3))
        logs = logs + np.log(np.clip(own.fit(X[:, view], y).predict_proba(X[:, view]), 1e-4, 1))
    np.testing.assert_array_equal(model.predict(X[:, :2]), np.argmax(logs, 1))


@pytest.mark.parametrize(("roles", "chosen"), [(ROLES, "cells"), (ROLES[:2], "plain"), (ROLES[:1], "plain")])
def test_without_three_groups_there_is_no_choice(roles, chosen):
    X, y, group = images(groups=2)
    for groups in (group, None):
        model = RecipeChoice(roles).fit(X[:, : len(roles)], y, groups=groups)
        assert model.chosen_ == chosen and not model.scores_ and model.reason_


def test_views_of_one_picture_share_a_model():
    X, y, group = images(groups=2)
    model = RecipeChoice(ROLES).fit(X, y, groups=group)
    own = BalancedDiscriminant().fit(X[:, 2:].reshape(len(X), -1), y, groups=group)
    np.testing.assert_allclose(model.predict_proba(X), own.predict_proba(X[:, 2:].reshape(len(X), -1)), atol=1e-9)


def test_a_constant_view_is_left_out_by_name():
    X, y, group = images()
    X[:, 1] = 0.5
    model = RecipeChoice(ROLES).fit(X, y, groups=group)
    assert model.left_out_ == ("soft-1",)
    assert "fields" not in model.scores_
    assert np.isfinite(model.predict_proba(X)).all()


def test_many_groups_are_left_out_several_at_a_time():
    X, y, group = images(groups=30, each=12)
    model = RecipeChoice(ROLES).fit(X, y, groups=group)
    assert "6 parts" in model.reason_


@pytest.mark.slow
def test_groups_of_one_class_each():
    X, y, _ = images(groups=4, each=90)
    group = 2 * y + np.arange(len(y)) % 2
    model = RecipeChoice(ROLES).fit(X, y, groups=group)
    assert model.scores_ and model.chosen_ in model.scores_


def test_it_is_a_classifier_of_scikit_learn():
    X, y, group = images()
    names = np.array(["b", "a", "c"])[y]
    own: Any = clone(RecipeChoice(ROLES))
    model = own.fit(X, names, groups=group)
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert (model.predict(X) == names).mean() > 0.9
    np.testing.assert_allclose(model.predict_proba(X).sum(1), 1)
    with pytest.raises(ValueError, match="4 roles and 2 views"):
        RecipeChoice(ROLES).fit(X[:, :2], y)


def test_a_compact_choice_needs_only_its_views():
    X, y, group = images()
    model = RecipeChoice(ROLES).fit(X, y, groups=group)
    used, compact = model.compact()
    assert used == (2, 3) and [role.name for role in compact.roles] == ["crop@block2-2", "crop@block3-3"]
    np.testing.assert_array_equal(compact.predict_proba(X[:, list(used)]), model.predict_proba(X))
