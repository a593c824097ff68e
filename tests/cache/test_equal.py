"""Different files with one and the same embedding."""

from typing import Any

import h5py

from ball_features.cache import equal_embeddings, equal_remark, read_cache


def test_equal_embeddings_of_different_files_are_noticed(small_cache, tmp_path):
    """Two blank pictures have one embedding; copies of one file are no news."""
    path = tmp_path / "equal.h5"
    path.write_bytes(small_cache.read_bytes())
    assert equal_embeddings(read_cache(path)) == []
    assert equal_remark(read_cache(path)) == ""
    with h5py.File(path, "r+") as file:
        del file["checksums"]
        stored: Any = file["embeddings"]
        sha256: Any = file["sha256"]
        for row in (7, 20):
            stored[row, 0] = stored[3, 0]
        stored[30] = stored[29]
        sha256[30] = sha256[29]
    cache = read_cache(path)
    assert equal_embeddings(cache) == [[3, 7, 20]]
    assert equal_remark(cache).startswith("3 of 48 images are different files")
    assert str(cache.path[20]) in equal_remark(cache)
