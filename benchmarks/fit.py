"""The head against scikit-learn's MLPClassifier and a plain DataLoader loop, and every model of the table.

    python benchmarks/fit.py [CACHE.h5] --turns 3

Without a cache, noise of the size of a hold-out's training part (2,084 x 1920, 4 classes) stands in. Seconds are
medians of the turns, on one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits
from torch.utils.data import DataLoader, TensorDataset
from xgboost import XGBClassifier

from ball_features.cache import read_cache
from ball_features.config import FitConfig, HeadConfig
from ball_features.dataset.splits import ImageTable, make_splits
from ball_features.models.registry import MODELS
from ball_features.models.training import build_module


def data(cache: Path | None) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], np.ndarray, np.ndarray]:
    """Training and test rows, float32, of the embeddings and of each shortcut's numbers, and their classes."""
    if cache is None:
        rng = np.random.default_rng(0)
        y = rng.integers(0, 4, 2736)
        X = (rng.normal(size=(2736, 1920)) + 0.3 * rng.normal(size=(4, 1920))[y]).astype(np.float32)
        return {"embedding": (X[:2084], X[2084:])}, y[:2084], y[2084:]
    read = read_cache(cache)
    split = make_splits(FitConfig(repeats=1), ImageTable(read.path, read.label, read.sha256))[0][0]
    y = np.unique(read.label, return_inverse=True)[1]
    rows = {"embedding": read.embeddings[:, 0].astype(np.float32), "none": np.zeros((len(y), 1), np.float32)}
    rows |= {name: numbers.astype(np.float32) for name, numbers in read.shortcuts.items()}
    return {name: (X[split.train], X[split.test]) for name, X in rows.items()}, y[split.train], y[split.test]


def loop(X: np.ndarray, y: np.ndarray, T: np.ndarray) -> np.ndarray:
    """The student report's recipe as it is usually written; predicted classes of T."""
    torch.manual_seed(0)
    module = build_module(X.shape[1], (64, 64), 4, 0.2)
    adam = torch.optim.Adam(module.parameters(), lr=1e-4, weight_decay=1e-5)
    loss_of = torch.nn.CrossEntropyLoss()
    loader = DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(y)), 16, shuffle=True, drop_last=True)
    for _ in range(40):
        for rows, codes in loader:
            adam.zero_grad()
            loss_of(module(rows), codes).backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 0.01)
            adam.step()
    with torch.no_grad():
        return module.eval()(torch.from_numpy(T)).argmax(1).numpy()


def sklearn_head(X: np.ndarray, y: np.ndarray, T: np.ndarray) -> np.ndarray:
    """scikit-learn's nearest thing: no batch norm, no dropout, 40 epochs of batches of 16."""
    head = MLPClassifier((64, 64), batch_size=16, learning_rate_init=1e-4, max_iter=40, random_state=0)
    return head.fit(X, y).predict(T)


def defaults() -> dict[str, Any]:
    """The models whose settings were chosen for speed, as their libraries set them."""
    calibration: dict[str, Any] = {"method": "sigmoid", "cv": 3, "ensemble": False}
    return {
        "linear-svm": make_pipeline(
            StandardScaler(), CalibratedClassifierCV(SVC(kernel="linear", C=0.01), **calibration)
        ),
        "rbf-svm": make_pipeline(StandardScaler(), CalibratedClassifierCV(SVC(C=10), **calibration)),
        "random-forest": RandomForestClassifier(random_state=0),
        "extra-trees": ExtraTreesClassifier(random_state=0),
        "hist-gradient-boosting": HistGradientBoostingClassifier(random_state=0),
        "xgboost": XGBClassifier(n_jobs=1, random_state=0),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, nargs="?")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--defaults", action="store_true", help="also models with the settings of their libraries")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows, y, truth = data(arguments.cache)
    X, T = rows["embedding"]
    runs: dict[str, Callable[[], np.ndarray]] = {
        "plain DataLoader loop": lambda: loop(X, y, T),
        "MLPClassifier": lambda: sklearn_head(X, y, T),
    }
    for name, spec in MODELS.items():
        if spec.features in rows:
            train, test = rows[spec.features]
            runs[name] = lambda spec=spec, X=train, T=test: spec.build(0, HeadConfig()).fit(X, y).predict(T)
    if arguments.defaults:
        for name, model in defaults().items():
            runs[f"{name}, defaults"] = lambda model=model: clone(model).fit(X, y).predict(T)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    right: dict[str, float] = {}
    with threadpool_limits(1):
        for _ in range(arguments.turns):
            for name, run in runs.items():
                start = time.perf_counter()
                predicted = run()
                seconds[name].append(time.perf_counter() - start)
                right[name] = float((predicted == truth).mean())
    ran = describe("torch", "scikit-learn", "xgboost")
    print(f"{ran}, one thread, {X.shape[0]} x {X.shape[1]}, {arguments.turns} turns")
    print("| | fit and predict, s | accuracy |\n| --- | ---: | ---: |")
    for name, values in seconds.items():
        print(f"| {name} | {statistics.median(values):.2f} | {100 * right[name]:.2f} |")


if __name__ == "__main__":
    main()
