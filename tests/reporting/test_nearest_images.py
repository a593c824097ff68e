"""Nearest training images: found block by block as among all at once."""

import numpy as np
import pytest

from ball_features.cache import read_cache
from ball_features.reporting import nearest_images
from ball_features.reporting.nearest_images import Neighbours
from tests.made import clouds, write_cache


@pytest.mark.parametrize("held", [1000, 64])
def test_nearest_training_images_of_a_split(tmp_path, monkeypatch, held):
    monkeypatch.setattr(nearest_images, "HELD", held)
    embeddings, labels = clouds(50, dim=12)
    cache = read_cache(write_cache(tmp_path / "c.h5", embeddings, labels))
    paths = cache.path.tolist()
    trained = {("0", "0"): paths[::2], ("1", "0"): paths[1::2], ("2", "0"): []}
    queries = [(paths[1], ("0", "0")), (paths[1], ("1", "0")), (paths[8], ("2", "0")), ("elsewhere", ("0", "0"))]
    queries += [(path, ("0", "0")) for path in paths[3:40]]
    found = Neighbours(cache, trained).of(queries)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    for (path, split), near in zip(queries, found, strict=True):
        if path not in paths or not trained[split]:
            assert near == []
            continue
        cosine = {other: unit[paths.index(other)] @ unit[paths.index(path)] for other in trained[split]}
        assert near == sorted(cosine, key=lambda other: -cosine[other])[:3]
