"""Readers of text and bytes: whatever a file holds, they give a result or one of `ball`'s own errors."""

import io
import json
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ball_features.bundles.bundle import read_bundle
from ball_features.cache import read_cache
from ball_features.dataset.archives import index_archive, read_entry
from ball_features.dataset.decode import decode_bytes
from ball_features.dataset.sheet_formats import read_tables
from ball_features.errors import BallError

BOUNDED = settings(max_examples=40, suppress_health_check=list(HealthCheck))
CELLS = st.text(st.characters(codec="utf-8"), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | CELLS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CELLS, inner, max_size=3),
    max_leaves=8,
)


def tried(read, name, content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            read(path)
        except BallError as error:
            assert str(error)


@BOUNDED
@given(st.binary(max_size=300) | st.lists(st.lists(CELLS, max_size=4), max_size=5).map(
    lambda rows: "\n".join(",".join(row) for row in rows).encode()))  # fmt: skip
def test_sheets(content):
    tried(read_tables, "sheet.csv", content)


@BOUNDED
@given(st.binary(max_size=300).map(lambda rest: b"\x89HDF\r\n\x1a\n" + rest) | st.binary(max_size=100))
def test_caches(content):
    tried(read_cache, "a.h5", content)


@pytest.mark.slow
@BOUNDED
@given(st.dictionaries(st.sampled_from(["format", "model", "classes", "views", "recipe", "temperature"]), JSON))
def test_bundles(values):
    tried(lambda path: read_bundle(path.parent), "bundle.json", json.dumps({"format": 1} | values).encode())


@BOUNDED
@given(
    st.sampled_from([b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\x00", b"GIF89a", b"RIFF", b""]),
    st.binary(max_size=300),
)
def test_images(head, rest):
    tried(lambda path: decode_bytes(path.read_bytes()), "a.png", head + rest)


@BOUNDED
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4), st.booleans())
def test_archives(changes, packed):
    buffer = io.BytesIO()
    if packed:
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/1.jpg", b"pixels" * 20)
    else:
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("a/1.jpg"))
    content = bytearray(buffer.getvalue())
    for place, value in changes:
        content[place % len(content)] = value
    try:
        entries = index_archive(io.BytesIO(content), "a.zip" if packed else "a.tar")
        for entry in entries.values():
            read_entry(lambda start, end: bytes(content[start:end]), entry)
    except (BallError, OSError) as error:
        assert str(error)
