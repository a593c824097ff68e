"""Images in archives and under addresses are embedded as those of a folder, bit for bit."""

import json
import tarfile
import zipfile

import numpy as np
import pytest
from typer.testing import CliRunner

from ball_features import ExtractConfig, extract, read_cache
from ball_features.cli import app
from ball_features.dataset import manifest
from tests.tiny import TINY

pytestmark = pytest.mark.usefixtures("tiny_densenet")
CONFIG = ExtractConfig(backbone=TINY, weights="random", views=1, input_px=64, precision="fp32", limit=8)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, smears, tiny_densenet):
    return read_cache(extract(smears, tmp_path_factory.mktemp("whole") / "c.h5", CONFIG).cache)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zip", "tar", "address"])
def test_embeddings_of_an_archive_are_those_of_its_folder(smears, tmp_path, whole, kind):
    files = sorted(path for path in smears.rglob("*") if path.is_file())
    place = tmp_path / f"smears.{'tar' if kind == 'tar' else 'zip'}"
    if kind == "tar":
        with tarfile.open(place, "w") as archive:
            for path in files:
                archive.add(path, path.relative_to(smears))
    else:
        with zipfile.ZipFile(place, "w") as archive:
            for path in files:
                archive.write(path, path.relative_to(smears))
    images = f"file://{place}" if kind == "address" else str(place)
    found = read_cache(extract(images, tmp_path / "c.h5", CONFIG).cache)
    assert np.array_equal(found.embeddings, whole.embeddings)
    assert (found.path.tolist(), found.sha256.tolist()) == (whole.path.tolist(), whole.sha256.tolist())
    assert found.label.tolist() == whole.label.tolist()
    assert all(np.array_equal(found.shortcuts[name], whole.shortcuts[name]) for name in whole.shortcuts)
    assert extract(images, tmp_path / "c.h5", CONFIG).computed == 0


def test_a_shard_hashes_its_own_images_alone(smears, tmp_path, monkeypatch):
    hashed = []
    usual = manifest.hash_file
    monkeypatch.setattr(manifest, "hash_file", lambda path: hashed.append(path) or usual(path))
    done = CliRunner().invoke(
        app,
        ["extract", str(smears), "--out", str(tmp_path / "1.h5"), "--shard", "1/4", "--dry-run", "--json",
         "--weights", "random", "--backbone", "densenet121"],
    )  # fmt: skip
    shard = json.loads(done.output)["images"]
    assert 0 < shard == len(hashed) < len(manifest.scan(smears, hashed=False).path) / 3
