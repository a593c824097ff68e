"""Where memory is short a batch is computed in halves, and the run goes on."""

import numpy as np
import pytest
import torch

from ball_features import ExtractConfig, extract, read_cache
from ball_features.errors import CacheError, ConfigError
from ball_features.extraction.engine.densenet import Engine
from ball_features.extraction.memory import require_memory, within_memory
from ball_features.extraction.preprocessing import Preprocessing

ERRORS = [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ...")]
ERRORS.append(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"))


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("fits", [1, 3, 8])
def test_a_batch_is_halved_until_it_fits(error, fits):
    sizes = []

    def read(images, readouts, nuclei):
        if len(images) > fits:
            raise error
        sizes.append(len(images))
        assert nuclei is None or len(nuclei) == len(images)
        return [images.sum((1, 2, 3))[:, None] * (number + 1) for number in range(len(readouts))]

    images = torch.rand(7, 3, 4, 4)
    for nuclei in (None, torch.ones(7, 1, 4, 4)):
        found = within_memory(read)(images, [None, None], nuclei)
        for number, values in enumerate(found):
            assert torch.equal(values, images.sum((1, 2, 3))[:, None] * (number + 1))
    assert max(sizes) <= fits


def test_one_image_too_many_and_other_errors():
    def short(*given):
        raise MemoryError("no more")

    def wrong(*given):
        raise RuntimeError("shapes differ")

    with pytest.raises(CacheError, match="does not suffice for one image"):
        within_memory(short)(torch.zeros(2, 3, 4, 4), [None], None)
    with pytest.raises(RuntimeError, match="shapes differ"):
        within_memory(wrong)(torch.zeros(2, 3, 4, 4), [None], None)


@pytest.mark.slow
def test_an_extraction_goes_on_in_smaller_batches(smears, small_cache, tmp_path, monkeypatch):
    whole = Engine._maps

    def short(self, images, blocks):
        if len(images) > 3:
            raise MemoryError
        return whole(self, images, blocks)

    monkeypatch.setattr(Engine, "_maps", short)
    monkeypatch.setattr("ball_features.extraction.engine.choose.Chooser._sample", lambda self, count: {})
    config = ExtractConfig("densenet121", views=2, weights="random", input_px=96, precision="fp32", limit=8)
    extract(smears, tmp_path / "a.h5", config)
    got, wanted = read_cache(tmp_path / "a.h5"), read_cache(small_cache)
    rows = [wanted.path.tolist().index(path) for path in got.path]
    assert np.allclose(got.embeddings, wanted.embeddings[rows], rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("side", "recipe", "fits"), [(224, "plain", True), (4096, "plain", False), (224, "enlarge+enlarge+enlarge", False)]
)
def test_images_that_no_memory_holds_are_refused_before_the_network_is_loaded(
    tmp_path, smears, monkeypatch, side, recipe, fits
):
    monkeypatch.setattr("ball_features.extraction.memory.memory_bytes", lambda: 1e9)
    config = ExtractConfig(
        backbone="densenet121", weights="random", recipe=recipe, precision="fp32", input_px=side, limit=4
    )
    if fits:
        require_memory("cpu", Preprocessing.from_config(config))
        return
    with pytest.raises(ConfigError, match=r"takes the network about \d+ GB of memory, and there are 1\."):
        extract(smears, tmp_path / "a.h5", config)
    assert not (tmp_path / "a.h5").exists()
