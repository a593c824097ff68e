"""Kinds of images that are never opened, and JPEG files that would take hours: refused by what the file begins with."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from ball_features.dataset.decode import decode_bytes
from ball_features.dataset.jpeg import MAX_SCANS
from ball_features.dataset.manifest import scan
from ball_features.errors import ImageError

_SCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n%%EOF\n"


def saved(kind: str, image: Image.Image | None = None, **options) -> bytes:
    buffer = io.BytesIO()
    (image or Image.linear_gradient("L").resize((32, 32)).convert("RGB")).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script")
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
def test_no_program_is_started_for_an_image(tmp_path, monkeypatch, name):
    """Pillow hands PostScript to Ghostscript, which runs it."""
    shim = tmp_path / "bin" / "gs"
    shim.parent.mkdir()
    shim.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    for label in "ab":
        (tmp_path / "images" / label).mkdir(parents=True)
        (tmp_path / "images" / label / name).write_bytes(_SCRIPT + label.encode())
    scan(tmp_path / "images", anywhere=True)
    with pytest.raises(ImageError, match="is not an image, or of a kind that is not supported"):
        decode_bytes(_SCRIPT)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("kind", ["EPS", "ICO", "ICNS", "DDS", "SGI", "SPIDER", "XBM", "FITS", "WMF"])
def test_other_kinds_are_refused_whatever_their_name(kind):
    odd = {
        "FITS": b"SIMPLE  =                    T" + b" " * 50 + b"END".ljust(2800),
        "WMF": b"\xd7\xcd\xc6\x9a\x00\x00" + bytes(400),
    }
    image = {"XBM": Image.new("1", (32, 32)), "SPIDER": Image.new("F", (32, 32))}.get(kind)
    data = odd.get(kind) or saved(kind, image)
    with pytest.raises(ImageError, match="of a kind that is not supported"):
        decode_bytes(data)


def with_scans(count: int) -> bytes:
    data = saved("JPEG", Image.linear_gradient("L").resize((32, 32)))
    start = data.index(b"\xff\xda")
    return data[:start] + data[start:-2] * count + data[-2:]


@pytest.mark.parametrize("count", [MAX_SCANS + 1, 5000])
def test_a_jpeg_of_very_many_scans_is_refused(count):
    with pytest.raises(ImageError, match=f"has {count} scans, more than {MAX_SCANS}"):
        decode_bytes(with_scans(count))


@pytest.mark.parametrize(("count", "length"), [(101, 8), (150_000, 16), (1_000, 65_000)])
def test_a_jpeg_of_very_many_segments_of_exif_is_refused(count, length):
    """Pillow copies all segments before for each."""
    data = saved("JPEG")
    segment = b"\xff\xe1" + (length + 2).to_bytes(2, "big") + b"Exif\0\0".ljust(length, b"A")
    with pytest.raises(ImageError, match=f"has {count} segments of EXIF, more than 100"):
        decode_bytes(data[:2] + segment * count + data[2:])


@pytest.mark.parametrize("form", ["progressive", "comment", "end", "restarts"])
def test_what_only_looks_like_many_scans_is_read(form):
    marks = b"\xff\xda" * (2 * MAX_SCANS)
    data = saved("JPEG", progressive=form == "progressive")
    expected = decode_bytes(data)
    if form == "restarts":
        data = saved("JPEG", restart_marker_blocks=1)
    if form in ("comment", "restarts"):
        data = data[:2] + b"\xff\xfe" + (len(marks) + 2).to_bytes(2, "big") + marks + data[2:]
    elif form == "end":
        data += marks
    assert np.array_equal(decode_bytes(data), expected)
