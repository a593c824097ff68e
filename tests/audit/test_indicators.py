"""Indicators of an audit: embeddings far from all others, also where each is compared with a sample."""

import numpy as np

from ball_features.audit import indicators


def test_a_sample_of_many_images_finds_the_same_outlier(monkeypatch):
    rng = np.random.default_rng(0)
    rows = rng.normal(1, 0.2, (400, 8))
    rows[7] = -1
    every = indicators._neighbour_distance(rows)
    monkeypatch.setattr(indicators, "_COMPARED", 100)
    sampled = indicators._neighbour_distance(rows)
    assert every.argmax() == sampled.argmax() == 7
    assert (sampled > every - 1e-6).all() and (sampled < 4 * every + 1e-3).all()
