"""Kinds of images that are never opened, and JPEG files that would take hours: refused by what the file begins with."""

import io
import os
import struct

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ball_features.dataset.decode import _exif_of, decode_bytes
from ball_features.dataset.jpeg import MAX_SCANS
from ball_features.dataset.manifest import scan
from ball_features.dataset.tags import claims_too_much
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


def tags(kind: int, number: int, entries: int, length: int, order: str = "<") -> bytes:
    """A directory whose entries take one place, with what they take behind it."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    offset = 8 + 2 + 12 * entries + 4
    rows = b"".join(struct.pack(f"{order}HHII", 40_000 + own % 20_000, kind, number, offset) for own in range(entries))
    return head + struct.pack(f"{order}IH", 8, entries) + rows + bytes(4 + length)


MUCH = {
    "many numbers": tags(3, 2_000_000, 1, 4_000_000),
    "many numbers, the other way": tags(3, 2_000_000, 1, 4_000_000, ">"),
    "many fractions": tags(5, 1_100_000, 1, 8_800_000),
    "one place for all": tags(7, 60_000, 2_000, 60_000),
    "one place for all, as text": tags(2, 500_000, 60, 500_000),
}


@pytest.mark.parametrize("kind", MUCH)
@pytest.mark.parametrize("form", ["TIFF", "JPEG", "PNG", "WEBP"])
def test_tags_that_take_more_than_the_pixels_are_refused(kind, form):
    """Pillow makes an object of each number when it opens the file, and a copy of each tag."""
    data = MUCH[kind]
    if form == "JPEG":
        image, parts = saved("JPEG"), [data[at : at + 65_000] for at in range(0, len(data), 65_000)]
        if len(parts) > 100:
            pytest.skip("more than the segments that are read")
        segments = (b"\xff\xe1" + (len(own) + 8).to_bytes(2, "big") + b"Exif\0\0" + own for own in parts)
        data = image[:2] + b"".join(segments) + image[2:]
    elif form != "TIFF":
        data = saved(form, exif=data)
    with pytest.raises(ImageError, match="has tags"):
        decode_bytes(data)


def test_such_tags_in_a_text_are_left_out():
    text = PngInfo()
    text.add_text("Raw profile type exif", "\n".join(["", "exif", "1", MUCH["one place for all"].hex()]), zip=True)
    with Image.open(io.BytesIO(saved("PNG", pnginfo=text))) as image:
        image.load()
        assert claims_too_much(_exif_of(image))
    assert np.array_equal(decode_bytes(saved("PNG", pnginfo=text)), decode_bytes(saved("PNG")))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_tags_that_lead_nowhere_are_none(form):
    """As programs leave them that edit EXIF."""
    exif = Image.Exif()
    exif[0x0112] = 6
    broken = bytearray(exif.tobytes().removeprefix(b"Exif\0\0"))
    entry = struct.pack(">HHII" if broken[:2] == b"MM" else "<HHII", 0x9286, 7, 2**31, 2**30)
    order = "big" if broken[:2] == b"MM" else "little"
    start = int.from_bytes(broken[4:8], order)
    broken[start : start + 2] = (2).to_bytes(2, order)
    broken[start + 14 : start + 14] = entry
    if form == "TIFF":
        assert not claims_too_much(bytes(broken))
    else:
        image = Image.linear_gradient("L").resize((48, 32)).convert("RGB")
        assert sorted(decode_bytes(saved(form, image, exif=bytes(broken))).shape) == [3, 32, 48]


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
