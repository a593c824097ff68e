"""Artefacts name no folder of a user: paths are stored relative to the artefact, and found again from there."""

from pathlib import Path

import h5py

from ball_features.cache import create_cache, read_cache
from ball_features.cache.places import from_stored, to_stored
from tests.cache.test_checksums import SETTINGS, contents


def test_paths_are_relative_to_the_artefact(tmp_path):
    own = {"images": str(tmp_path / "images"), "weights": str(tmp_path / "w.pth"), "recipe": "plain"}
    stored = to_stored(own, tmp_path / "a" / "b")
    assert stored == {"images": "./../../images", "weights": "./../../w.pth", "recipe": "plain"}
    assert from_stored(stored, tmp_path / "a" / "b") == own
    for word in ("imagenet", "random"):
        assert to_stored({"weights": word}, tmp_path) == from_stored({"weights": word}, tmp_path) == {"weights": word}


def test_a_cache_names_no_user_and_may_move_with_its_images(tmp_path):
    home = tmp_path / "alice"
    home.mkdir()
    create_cache(home / "a.h5", contents(attributes=SETTINGS | {"images": str(home / "images")}), source=None)
    assert b"alice" not in (home / "a.h5").read_bytes()
    home.rename(tmp_path / "bob")
    assert Path(read_cache(tmp_path / "bob" / "a.h5").attributes["images"]) == tmp_path / "bob" / "images"
    with h5py.File(tmp_path / "bob" / "a.h5") as file:
        assert file.attrs["images"] == "./images"
