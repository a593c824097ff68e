"""Pixels of PNG and TIFF files of every depth against those that were written, bit by bit or by tifffile."""

import struct
import zlib

import numpy as np
import pytest

from ball_features.dataset.decode import decode
from ball_features.errors import ImageError

RNG = np.random.default_rng(1)
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6  # colour types of PNG


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(path, values, depth, kind, more=b""):
    """A PNG file of values of so many bits."""
    rows = []
    for row in values.reshape(len(values), -1):
        if depth == 16:
            rows.append(row.astype(">u2").tobytes())
        else:
            rows.append(np.packbits(np.unpackbits(row.astype("u1")[:, None], axis=1)[:, 8 - depth :]).tobytes())
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, kind, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + more + body + chunk(b"IEND", b""))
    return path


def same(path, expected, most=1):
    """Pixels differ by no more than roundings to 8 bits do."""
    expected = np.broadcast_to(expected if expected.ndim == 3 else expected[..., None], (*expected.shape[:2], 3))
    found = decode(path).permute(1, 2, 0).numpy().astype(float)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= most


def over_white(colour, share):
    return colour * share + 255 * (1 - share)


def drawn(depth, *shape):
    return RNG.integers(0, 2**depth, (16, 24, *shape))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_png_and_its_transparent_value(tmp_path, depth):
    values, most = drawn(depth), 2**depth - 1
    shown = values * 255 / most
    same(png(tmp_path / "a.png", values, depth, GREY), shown)
    for clear in {0, 1, most, most // 3, int(values[0, 0])}:
        path = png(tmp_path / "a.png", values, depth, GREY, chunk(b"tRNS", struct.pack(">H", clear)))
        same(path, np.where(values == clear, 255, shown))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palettes_of_png(tmp_path, depth):
    values, colours = drawn(depth), RNG.integers(0, 256, (2**depth, 3))
    palette = chunk(b"PLTE", colours.astype("u1").tobytes())
    same(png(tmp_path / "a.png", values, depth, PALETTE, palette), colours[values])
    share = RNG.integers(2, 256, 2**depth)
    clear = palette + chunk(b"tRNS", share.astype("u1").tobytes())
    same(
        png(tmp_path / "a.png", values, depth, PALETTE, clear),
        over_white(colours[values], share[values][..., None] / 255),
    )


@pytest.mark.parametrize("depth", [8, 16])
def test_colours_and_alpha_of_png(tmp_path, depth):
    path, most = tmp_path / "a.png", 2**depth - 1
    colours, grey, four = drawn(depth, 3), drawn(depth, 2), drawn(depth, 4)
    same(png(path, colours, depth, RGB), colours * 255 / most)
    same(png(path, grey, depth, GREY_ALPHA), over_white(grey[..., 0] * 255 / most, grey[..., 1] / most), 2)
    same(png(path, four, depth, RGB_ALPHA), over_white(four[..., :3] * 255 / most, four[..., 3:] / most), 2)
    png(path, colours, depth, RGB, chunk(b"tRNS", struct.pack(">HHH", *colours[0, 0].tolist())))
    if depth == 16:
        with pytest.raises(ImageError, match="a transparent colour of 16 bits"):
            decode(path)
    else:
        same(path, np.where((colours == colours[0, 0]).all(-1, keepdims=True), 255, colours))


FIELD = np.kron(RNG.integers(0, 256, (6, 8)), np.ones((8, 8))).astype(np.uint8)
COLOURS = np.stack([FIELD, np.roll(FIELD, 9, 0), np.roll(FIELD, 17, 1)], -1)
ALPHA = np.full((*FIELD.shape, 1), 128, np.uint8)
DEEP, APART = np.uint16(257), np.ascontiguousarray(COLOURS.transpose(2, 0, 1))
TIFFS = {
    "grey": (FIELD, FIELD, {"photometric": "minisblack"}),
    "grey of 16 bits": (FIELD, FIELD * DEEP, {"photometric": "minisblack"}),
    "white is 0": (FIELD, 255 - FIELD, {"photometric": "miniswhite"}),
    "white is 0, 16 bits": (FIELD, 65535 - FIELD * DEEP, {"photometric": "miniswhite"}),
    "white is 0, floats": (FIELD, np.float32(1) - FIELD / np.float32(255), {"photometric": "miniswhite"}),
    "white is 0, turned": (
        FIELD[::-1, ::-1],
        65535 - FIELD * DEEP,
        {"photometric": "miniswhite", "extratags": [(274, "H", 1, 3, True)]},
    ),
    "floats": (FIELD, FIELD / np.float32(255), {"photometric": "minisblack"}),
    "colours": (COLOURS, COLOURS, {"photometric": "rgb"}),
    "colours of 16 bits": (COLOURS, COLOURS * DEEP, {"photometric": "rgb"}),
    "colours apart": (COLOURS, APART, {"photometric": "rgb", "planarconfig": "separate"}),
    "colours of 16 bits apart": (COLOURS, APART * DEEP, {"photometric": "rgb", "planarconfig": "separate"}),
    "alpha": (
        over_white(COLOURS, ALPHA / 255),
        np.dstack([COLOURS, ALPHA]),
        {"photometric": "rgb", "extrasamples": ["unassalpha"]},
    ),
    "alpha of 16 bits": (
        over_white(COLOURS, ALPHA / 255),
        np.dstack([COLOURS, ALPHA]) * DEEP,
        {"photometric": "rgb", "extrasamples": ["unassalpha"]},
    ),
    "tiles": (FIELD, FIELD * DEEP, {"photometric": "minisblack", "tile": (16, 16)}),
    "signed": (FIELD, FIELD.astype(np.int8), {"photometric": "minisblack"}),
    "signed, 16 bits": (FIELD, FIELD * DEEP.astype(np.int16), {"photometric": "minisblack"}),
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [{}, {"compression": "deflate"}, {"compression": "deflate", "predictor": True}])
@pytest.mark.parametrize("name", TIFFS)
def test_a_tiff_file_is_read_as_it_was_written_or_refused(tmp_path, name, packed, order):
    tifffile = pytest.importorskip("tifffile")
    expected, values, how = TIFFS[name]
    if "floats" in name:
        packed = {"compression": packed["compression"]} if packed else {}
    tifffile.imwrite(tmp_path / "a.tif", values, byteorder=order, **how, **packed)
    try:
        same(tmp_path / "a.tif", expected)
    except ImageError:
        assert "white is 0" in name or "apart" in name or "signed" in name or "floats" in name
        assert order == ">" or "apart" in name or "signed" in name or packed
