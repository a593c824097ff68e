"""The balanced discriminant against scikit-learn's and against closed forms."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from ball_features.models.discriminant import BalancedDiscriminant, balanced_weights


def blobs(images=300, columns=12, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=images)
    X = rng.normal(size=(images, columns)) @ rng.normal(size=(columns, columns)) + 3 * np.eye(3, columns)[y]
    return X.astype(np.float32), y


@pytest.mark.parametrize("shape", [(300, 12), (40, 120)])
def test_it_solves_the_shrunk_normal_equations(shape):
    X, y = blobs(*shape)
    model = BalancedDiscriminant(0.3).fit(X, y)
    weight = balanced_weights(y, None)
    Z = X.astype(float) - weight @ X
    Z /= np.sqrt(weight @ Z**2) + 1e-6
    means = np.stack([np.average(Z[y == k], 0, weight[y == k]) for k in range(3)])
    within = (Z - means[y]).T @ ((Z - means[y]) * weight[:, None])
    shrunk = 0.7 * within + 0.3 * np.trace(within) / len(within) * np.eye(len(within))
    direction = np.linalg.solve(shrunk, means.T)
    score = Z @ direction - 0.5 * (means.T * direction).sum(0)
    np.testing.assert_allclose(model.decision_function(X), score, atol=1e-5 * np.abs(score).max())


def test_equal_classes_give_the_answers_of_scikit_learn():
    X, y = blobs(600)
    keep = np.concatenate([np.flatnonzero(y == k)[:150] for k in range(3)])
    X, y = X[keep], y[keep]
    Z = (X - X.mean(0)) / X.std(0)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / 3] * 3).fit(Z, y)
    ours = BalancedDiscriminant(1e-9).fit(X, y)
    assert (ours.predict(X) == theirs.predict(Z)).mean() > 0.995


def test_sites_and_classes_count_the_same():
    y = np.array([0] * 30 + [1] * 90 + [0] * 200 + [1] * 20)
    site = np.array(["a"] * 120 + ["b"] * 220)
    weight = balanced_weights(y, site)
    parts = {(s, k): weight[(site == s) & (y == k)].sum() for s in "ab" for k in (0, 1)}
    np.testing.assert_allclose(list(parts.values()), 0.25)


def test_a_class_of_few_images_counts_less():
    y = np.array([0] * 40 + [1] * 40 + [0] * 40 + [1] * 2)
    weight = balanced_weights(y, np.array(["a"] * 80 + ["b"] * 42))
    assert weight[-2:].sum() == pytest.approx(weight[:40].sum() / 10)


def test_constant_columns_are_ignored():
    X, y = blobs()
    padded = np.concatenate([X, np.zeros((len(X), 5), np.float32)], 1)
    model = BalancedDiscriminant().fit(padded, y)
    assert np.isfinite(model.coef_).all()
    assert np.abs(model.coef_[:, -5:]).max() == 0


def test_wrong_arguments_are_named():
    X, y = blobs()
    with pytest.raises(ValueError, match="one class"):
        BalancedDiscriminant().fit(X, np.zeros(len(X)))
    with pytest.raises(ValueError, match="shrinkage=0"):
        BalancedDiscriminant(0).fit(X, y)
    with pytest.raises(ValueError, match="groups for"):
        BalancedDiscriminant().fit(X, y, groups=["a"])


@pytest.mark.parametrize("classes", [2, 3])
def test_scikit_learns_parts_give_the_same_answers(classes):
    X, y = blobs()
    X, y = X[y < classes], y[y < classes]
    model = BalancedDiscriminant().fit(X, y)
    np.testing.assert_allclose(model.to_pipeline().predict_proba(X), model.predict_proba(X), atol=1e-9)
