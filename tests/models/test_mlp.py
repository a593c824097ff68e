"""The head against autograd, against scikit-learn's own checks, and against itself."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from ball_features.models.mlp import MLPHead
from ball_features.models.network import build_module
from ball_features.models.training import Rows, Training, TrainingSettings, batch_sizes


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 203)
    X = rng.normal(size=(203, 30)) + rng.normal(size=(3, 30))[y]
    return X.astype(np.float32), np.array(["a", "b", "c"])[y]


@pytest.mark.slow
@pytest.mark.parametrize("clip_norm", [0.01, None])
@pytest.mark.parametrize("hidden", [(16, 8), (12,), (8, 8, 8)])
def test_training_agrees_with_autograd(data, clip_norm, hidden):
    """The written-out step against torch's modules, clip_grad_norm_ and Adam, on the same order of rows."""
    X, y = torch.from_numpy(data[0]), torch.from_numpy(np.unique(data[1], return_inverse=True)[1])
    weight = torch.tensor([1.0, 2.0, 0.5])
    settings = TrainingSettings(hidden, 1e-3, 1e-3, 16, 0.0, clip_norm)
    with torch.inference_mode():
        ours = Training(settings, Rows(X, y), weight, seed=1)
        start = {name: torch.from_numpy(value.copy()) for name, value in ours.state().items()}
    module = build_module(30, hidden, 3, 0.0)
    module.load_state_dict(start)
    adam = torch.optim.Adam(module.parameters(), lr=1e-3, weight_decay=1e-3)
    loss_of = torch.nn.CrossEntropyLoss(weight)
    module.train()
    for _ in range(3):
        order = ours.draw_order()
        logits = []
        for rows in order.split(batch_sizes(len(order), 16)):
            adam.zero_grad()
            out = module(X[rows])
            loss_of(out, y[rows]).backward()
            if clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(module.parameters(), clip_norm)
            adam.step()
            logits.append(out.detach())
        with torch.inference_mode():
            loss, accuracy = ours.run_epoch(order)
        logits = torch.cat(logits)
        assert loss == pytest.approx(loss_of(logits, y[order]).item(), rel=1e-3)
        assert accuracy == pytest.approx((logits.argmax(1) == y[order]).float().mean().item(), abs=0.01)
    for name, value in module.state_dict().items():
        if name.endswith("tracked"):
            continue
        # Where a gradient is zero in truth, Adam makes a full step of its rounding: the constants that batch norm
        # takes out. They change no output.
        if name.endswith("bias") and name != f"{3 * len(hidden) - 1 + 3 - (len(hidden) > 0)}.bias":
            continue
        assert torch.allclose(value, torch.from_numpy(ours.state()[name]), atol=3e-3, rtol=2e-2), name
    module.eval()
    with torch.inference_mode():
        assert ours.evaluate(X, y)[0] == pytest.approx(loss_of(module(X), y).item(), rel=2e-3)


def _too_slow(head):
    """What the report's learning rate does not reach on fifty rows, where forty epochs are 160 steps of 1e-4."""
    if head.learning_rate > 1e-4:
        return {}
    return {"check_class_weight_classifiers": "underfits at the report's learning rate; passes at 0.05, beside it"}


@pytest.mark.slow
@parametrize_with_checks(
    [MLPHead(), MLPHead(learning_rate=0.05, epochs=60, clip_norm=None)], expected_failed_checks=_too_slow
)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


@pytest.mark.slow
def test_labels_probabilities_clone_and_pipelines(data):
    X, y = data
    head = MLPHead(learning_rate=1e-2, epochs=60, clip_norm=None)
    fitted = clone(head).fit(X, y)
    assert fitted.classes_.tolist() == ["a", "b", "c"]
    probability = fitted.predict_proba(X)
    assert np.allclose(probability.sum(1), 1)
    assert (fitted.classes_[probability.argmax(1)] == fitted.predict(X)).all()
    assert cross_val_score(make_pipeline(StandardScaler(), head), X, y, cv=3).mean() > 0.8


def test_module_gives_the_same_probabilities(data):
    head = MLPHead(epochs=3).fit(*data)
    with torch.inference_mode():
        logits = head.to_module()(torch.from_numpy(data[0]))
    assert np.allclose(torch.softmax(logits, 1).numpy(), head.predict_proba(data[0]), atol=1e-5)


def test_same_seed_same_weights_whatever_the_threads(data):
    threads = torch.get_num_threads()
    try:
        states = []
        for count in (1, 2):
            torch.set_num_threads(count)
            states.append(MLPHead(epochs=2, random_state=3).fit(*data).state_)
    finally:
        torch.set_num_threads(threads)
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])
    other = MLPHead(epochs=2, random_state=4).fit(*data).state_
    assert not np.array_equal(states[0]["1.weight"], other["1.weight"])


def test_validation_chooses_the_epoch(data):
    X, y = data
    y = np.where(np.random.default_rng(1).random(len(y)) < 0.2, "a", y)  # wrong labels, so that overfitting shows
    head = MLPHead(learning_rate=0.05, epochs=30, clip_norm=None, dropout=0.0)
    head.fit(X[:60], y[:60], X_val=X[60:], y_val=y[60:])
    curve = head.history_["val_loss"]
    assert head.best_epoch_ == curve.argmin() < 29
    codes = np.searchsorted(head.classes_, y[60:])
    loss = -np.log(head.predict_proba(X[60:])[np.arange(len(codes)), codes]).mean()
    assert loss == pytest.approx(curve.min(), rel=1e-4)
    alone = MLPHead(epochs=4).fit(X, y)
    assert alone.best_epoch_ == 3
    assert np.isnan(alone.history_["val_loss"]).all()


def test_float16_rows_and_the_global_generator(data):
    before = torch.random.get_rng_state()
    X16 = data[0].astype(np.float16)
    a = MLPHead(epochs=2).fit(X16, data[1])
    b = MLPHead(epochs=2).fit(X16.astype(np.float32), data[1])
    assert np.array_equal(a.state_["1.weight"], b.state_["1.weight"])
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden": ()},
        {"epochs": 0},
        {"batch_size": 1},
        {"dropout": 1.0},
        {"l2": -1},
        {"views_per_image": 0},
        *({"class_weight": {"Benign": weight}} for weight in (0, -1, float("nan"), float("inf"))),
        {"class_weight": "x"},
    ],
)
def test_parameters_out_of_range(data, wrong):
    with pytest.raises(ValueError, match=f"got {next(iter(wrong))}="):
        MLPHead(**wrong).fit(*data)


def test_consistency_agrees_with_autograd(data):
    """Two views an image: the step with the second loss against autograd, on the same order of rows."""
    X = torch.from_numpy(np.repeat(data[0][:100], 2, 0) + np.random.default_rng(2).normal(0, 0.5, (200, 30)))
    X, y = X.float(), torch.from_numpy(np.repeat(np.unique(data[1], return_inverse=True)[1][:100], 2))
    settings = TrainingSettings((16, 8), 1e-3, 0.0, 16, 0.0, None, consistency=3.0)
    with torch.inference_mode():
        ours = Training(settings, Rows(X, y, views=2), torch.ones(3), seed=1)
        start = {name: torch.from_numpy(value.copy()) for name, value in ours.state().items()}
    module = build_module(30, (16, 8), 3, 0.0)
    module.load_state_dict(start)
    adam = torch.optim.Adam(module.parameters(), lr=1e-3)
    module.train()
    order = ours.draw_order()
    assert torch.equal(order[1::2], order[::2] + 1)
    for rows in order.split(16):
        adam.zero_grad()
        out = module(X[rows])
        views = out.view(-1, 2, 3)
        apart = (views - views.mean(1, keepdim=True)).square().sum() / 2 / len(rows)
        (torch.nn.functional.cross_entropy(out, y[rows]) + 3.0 * apart).backward()
        adam.step()
    with torch.inference_mode():
        ours.run_epoch(order)
        expected = module.eval()(X)
        got = torch.nn.Sequential(*build_module(30, (16, 8), 3, 0.0))
        got.load_state_dict({name: torch.from_numpy(value) for name, value in ours.state().items()})
        assert torch.allclose(got.eval()(X), expected, atol=2e-2)


@pytest.mark.slow
def test_consistency_brings_views_together(data):
    X = np.repeat(data[0], 2, 0) + np.random.default_rng(2).normal(0, 1, (406, 30)).astype(np.float32)
    y = np.repeat(data[1], 2)
    settings = {"learning_rate": 1e-2, "epochs": 20, "clip_norm": None}
    apart = []
    for weight in (0.0, 30.0):
        module = MLPHead(consistency=weight, views_per_image=2, **settings).fit(X, y).to_module()
        with torch.inference_mode():
            logits = module(torch.from_numpy(X)).view(-1, 2, 3)
        logits = logits / logits.std()
        apart.append(float((logits[:, 0] - logits[:, 1]).square().mean()))
    assert apart[1] < 0.8 * apart[0]
    with pytest.raises(ValueError, match="views_per_image=2"):
        MLPHead(views_per_image=2).fit(X[:5], y[:5])
