"""The machines against scikit-learn's own parts."""

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from ball_features.models import kernel
from ball_features.models.kernel import KernelSVM


@parametrize_with_checks([KernelSVM("linear"), KernelSVM("rbf")])
def test_it_is_an_estimator_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat(["a", "b", "c"], [60, 50, 40]))
    X = (rng.normal(size=(150, 30)) + 1.2 * (y[:, None] == np.array(["a", "b", "c"] * 10))).astype(np.float32)
    return X[:110], y[:110], X[110:]


@pytest.mark.parametrize(("name", "C"), [("linear", 0.01), ("rbf", 10.0)])
@pytest.mark.parametrize("held", [True, False], ids=["gram", "columns"])
def test_it_says_what_scikit_learn_says(data, name, C, held, monkeypatch):
    if not held:
        monkeypatch.setattr(kernel, "GRAM_ROWS", 100)
    X, y, T = data
    reference = CalibratedClassifierCV(SVC(kernel=name, C=C), method="sigmoid", cv=3, ensemble=False)
    expected = reference.fit(X.astype(float), y).predict_proba(T.astype(float))
    own = KernelSVM(name, C=C).fit(X, y)
    # Where an optimiser stops.
    assert np.allclose(own.predict_proba(T), expected, atol=5e-3)
    alone = own.to_calibrated()
    assert np.allclose(alone.predict_proba(T), own.predict_proba(T), atol=5e-3)
    assert alone.predict(T).tolist() == own.predict(T).tolist()
    assert type(alone) is CalibratedClassifierCV


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_its_parts_are_those_of_a_machine_that_scikit_learn_fitted(data, kernel):
    """Made by writing into scikit-learn's own attributes: a later version that has others shows here."""
    X, y, T = data
    expected = CalibratedClassifierCV(SVC(kernel=kernel), method="sigmoid", cv=3, ensemble=False).fit(
        X.astype(float), y
    )
    alone = KernelSVM(kernel).fit(X, y).to_calibrated()
    (own,), (theirs,) = alone.calibrated_classifiers_, expected.calibrated_classifiers_
    for one, other in ((alone, expected), (own, theirs), (own.estimator, theirs.estimator)):
        assert type(one) is type(other)
        assert set(vars(one)) == set(vars(other))
    assert own.classes.tolist() == theirs.classes.tolist() == own.estimator.classes_.tolist()
    assert alone.n_features_in_ == own.estimator.n_features_in_ == expected.n_features_in_
    assert [vars(item).keys() for item in own.calibrators] == [vars(item).keys() for item in theirs.calibrators]
    assert np.allclose(alone.predict_proba(T), expected.predict_proba(T.astype(float)), atol=5e-3)


def test_wrong_kernels_are_named(data):
    with pytest.raises(ValueError, match="expected linear or rbf"):
        KernelSVM("poly").fit(*data[:2])


def test_a_class_of_two_rows_is_calibrated_by_two_folds(data):
    X, y, T = data
    kept = np.concatenate([np.flatnonzero(y != "c"), np.flatnonzero(y == "c")[:2]])
    reference = CalibratedClassifierCV(SVC(), method="sigmoid", cv=2, ensemble=False)
    expected = reference.fit(X[kept].astype(float), y[kept]).predict_proba(T.astype(float))
    assert np.allclose(KernelSVM().fit(X[kept], y[kept]).predict_proba(T), expected, atol=5e-3)


def test_a_class_of_one_row_is_named(data):
    X, y, _ = data
    kept = np.concatenate([np.flatnonzero(y != "c"), np.flatnonzero(y == "c")[:1]])
    with pytest.raises(ValueError, match="one row of the class c, expected at least 2"):
        KernelSVM().fit(X[kept], y[kept])
