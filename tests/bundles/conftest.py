"""Bundles that are damaged on purpose."""

import shutil

import pytest
from safetensors.numpy import load, save


@pytest.fixture
def emptied(tmp_path):
    """A function that copies a bundle, one of its arrays without rows and no checksums to tell; the copy."""

    def make(bundle, name):
        folder = shutil.copytree(bundle, tmp_path / "bundle")
        arrays = load((folder / "reference.safetensors").read_bytes())
        (folder / "reference.safetensors").write_bytes(save(arrays | {name: arrays[name][:0].copy()}))
        (folder / "SHA256SUMS").unlink()
        return folder

    return make
