"""Bundles from strangers whose files never end, claim what they do not hold, or unpack without a bound."""

import os
import shutil
import struct
import warnings
import zipfile
from pathlib import Path

import pytest

from ball_features.bundles.bundle import read_bundle, saved_notes
from ball_features.bundles.sums import changed_files, write_checksums
from ball_features.errors import DataError
from ball_features.reporting.stored_run import read_stored_run

OLD = Path(__file__).parents[1] / "data" / "v0.1.0" / "bundles" / "logistic"
FILES = ("bundle.json", "reference.safetensors", "model.skops")
DEEP = "[" * 200_000 + "]" * 200_000


def grow(path):
    with path.open("r+b") as file:
        file.truncate(60 << 30)


def hole(path):
    """Not one byte on disk."""
    path.unlink()
    path.touch()
    os.truncate(path, 1 << 30)


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def device(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def folder(path):
    path.unlink()
    path.mkdir()


def members(path):
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def bomb(path):
    own = members(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in own.items():
            file.writestr(name, data + bytes(1 << 24) if name.endswith(".npy") else data)
        for number in range(4):
            file.writestr(f"{number}.npy", bytes(1 << 24))


def twice(path):
    schema = members(path)["schema.json"]
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as file:
        warnings.simplefilter("ignore")
        file.writestr("schema.json", schema)


def deep_parts(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("schema.json", DEEP)


def deep_value(path):
    path.write_text(path.read_text(encoding="utf-8").rstrip()[:-1] + f', "x": {DEEP}}}')


def head(path):
    path.write_bytes(struct.pack("<Q", 1 << 30) + b"{")
    grow(path)


def deep_head(path):
    text = f'{{"a": {DEEP}}}'.encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)


TRAPS = {f"{trap.__name__} {name}": (name, trap) for trap in (grow, hole, pipe, device, folder) for name in FILES} | {
    "nested JSON": ("bundle.json", lambda path: path.write_text(DEEP)),
    "nested value": ("bundle.json", deep_value),
    "a head of a gigabyte": ("reference.safetensors", head),
    "a nested head": ("reference.safetensors", deep_head),
    "members that unpack to more": ("model.skops", bomb),
    "two members of one name": ("model.skops", twice),
    "nested parts": ("model.skops", deep_parts),
}


@pytest.fixture
def copy(tmp_path):
    return Path(shutil.copytree(OLD, tmp_path / "bundle"))


@pytest.mark.slow
@pytest.mark.parametrize("trap", TRAPS)
def test_a_bundle_with_a_trap_is_refused_at_once(copy, trap):
    name, spring = TRAPS[trap]
    write_checksums(copy)
    spring(copy / name)
    with pytest.raises(DataError, match=r"is a damaged bundle|is not a bundle"):
        read_bundle(copy)
    assert name in (changed_files(copy) or ())
    if name == "bundle.json":
        with pytest.raises(DataError, match="is not a bundle"):
            saved_notes(copy)


@pytest.mark.parametrize("spring", [grow, hole, pipe, device], ids=lambda own: own.__name__)
def test_checksums_and_files_that_nothing_reads_are_no_traps(copy, spring):
    for name in ("SHA256SUMS", "more.json"):
        own = copy / name
        own.touch()
        spring(own)
        with pytest.raises(DataError, match=f"is a damaged bundle: {name}"):
            read_bundle(copy)
        assert changed_files(copy) in (["SHA256SUMS"], None)
        own.unlink()


def test_a_run_whose_files_are_pipes_or_nested_is_named(tmp_path):
    source = next((OLD.parents[1] / "runs").iterdir())
    for number, spring in enumerate((pipe, device, lambda path: path.write_text(DEEP))):
        run = Path(shutil.copytree(source, tmp_path / str(number)))
        for name in ("run.json", "metrics.json"):
            spring(run / name)
        with pytest.raises(DataError):
            read_stored_run(run)
