"""Several hundred image files that are odd, damaged or made to harm, each with what must become of it.

READ: read with the pixels of the picture. REFUSED: rejected, with a reason. SAME: either of both, but never with other
pixels than the picture's. ANY: no checksum could tell, so that only a crash or a hang would be a fault.
"""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageDraw
from PIL.PngImagePlugin import PngInfo

READ, REFUSED, SAME, ANY = "read", "refused", "same", "any"
WIDTH, HEIGHT = 200, 160
_LOSSY = ("jpg", "webp", "jp2", "avif", "gif")


def picture() -> Image.Image:
    """A smooth picture with some edges and a little noise, so that its files have some tens of kilobytes."""
    rng = np.random.default_rng(3)
    small = Image.fromarray(rng.uniform(120, 230, (7, 9, 3)).astype(np.uint8))
    image = small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for x, y in rng.uniform(20, 140, (12, 2)):
        draw.ellipse((x, y, x + 24, y + 22), fill=(110, 60, 140))
    pixels = np.asarray(image).astype(int) + rng.integers(-6, 7, (HEIGHT, WIDTH, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def sound_files(image: Image.Image) -> dict[str, bytes]:
    """Files that hold the picture."""
    own = {
        "plain.jpg": saved(image, "JPEG", quality=95),
        "progressive.jpg": saved(image, "JPEG", quality=95, progressive=True),
        "full.jpg": saved(image, "JPEG", quality=95, subsampling=0),
        "restart.jpg": saved(image, "JPEG", quality=95, restart_marker_blocks=4),
        "plain.png": saved(image, "PNG"),
        "adaptive.png": saved(image.convert("P", palette=Image.Palette.ADAPTIVE, colors=256), "PNG"),
        "alpha.png": saved(image.convert("RGBA"), "PNG"),
        "plain.bmp": saved(image, "BMP"),
        "plain.tif": saved(image, "TIFF"),
        "lzw.tif": saved(image, "TIFF", compression="tiff_lzw"),
        "deflate.tif": saved(image, "TIFF", compression="tiff_adobe_deflate"),
        "packbits.tif": saved(image, "TIFF", compression="packbits"),
        "pages.tif": saved(image, "TIFF", save_all=True, append_images=[image.rotate(180)]),
        "lossless.webp": saved(image, "WEBP", lossless=True),
        "lossy.webp": saved(image, "WEBP", quality=98),
        "moving.webp": saved(image, "WEBP", save_all=True, append_images=[image.rotate(180)], lossless=True),
        "moving.png": saved(image, "PNG", save_all=True, append_images=[image.rotate(180)]),
        "moving.gif": saved(image, "GIF", save_all=True, append_images=[image.rotate(180)]),
        "plain.ppm": saved(image, "PPM"),
        "plain.tga": saved(image, "TGA"),
        "packed.tga": saved(image, "TGA", compression="tga_rle"),
        "plain.pcx": saved(image, "PCX"),
        "lossless.jp2": saved(image, "JPEG2000", irreversible=False),
        "profile.jpg": saved(image, "JPEG", quality=95, icc_profile=_profile()),
        "profile.png": saved(image, "PNG", icc_profile=_profile()),
        "broken profile.jpg": saved(image, "JPEG", quality=95, icc_profile=b"no profile" * 20),
        "broken exif.jpg": saved(image, "JPEG", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 40),
        "with a zip behind.jpg": saved(image, "JPEG", quality=95) + b"PK\x03\x04" + bytes(60),
        "with a script behind.png": saved(image, "PNG") + b"<?php system($_GET['c']); ?>",
        "with a comment.jpg": saved(image, "JPEG", quality=95, comment=b"<script>alert(1)</script>" * 50),
    }
    turns = {3: 180, 6: 90, 8: 270}
    for number, angle in turns.items():
        exif = Image.Exif()
        exif[0x0112] = number
        own[f"turned {number}.jpg"] = saved(image.rotate(angle, expand=True), "JPEG", quality=95, exif=exif)
    if "AVIF" in Image.SAVE:
        own["plain.avif"] = saved(image, "AVIF", quality=95)
    return own


def _profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes, *chunks: bytes, depth: int = 1, colour: int = 0) -> bytes:
    """A PNG file whose header and pixels need not agree."""
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def zeros(megabytes: int) -> bytes:
    """So many times 2^20 zeros, packed: one packed block again and again, since packing all of them takes seconds."""
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)  # refers to nothing before it
    adler = ((megabytes << 20) % 65521) << 16 | 1
    return b"\x78\xda" + block * megabytes + b"\x03\x00" + struct.pack(">I", adler)


def bombs(image: Image.Image) -> dict[str, bytes]:
    """Small files that claim, or unpack to, very much; and files that are too small."""
    jpeg = bytearray(saved(image, "JPEG", quality=95))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 65500, 65500)
    tiff = bytearray(saved(image, "TIFF"))
    loop = bytearray(saved(image, "TIFF", save_all=True, append_images=[image]))
    first = struct.unpack("<I", loop[4:8])[0]
    entries = struct.unpack("<H", loop[first : first + 2])[0]
    loop[first + 2 + 12 * entries : first + 6 + 12 * entries] = loop[4:8]  # the next page is the first one
    many, head = bytearray(tiff), struct.unpack("<I", tiff[4:8])[0]
    many[head : head + 2] = b"\xff\xff"
    rows = zlib.compress(bytes(9 * 64))
    return {
        "wide and high.png": png(50_000, 50_000, zeros(200)),
        "claims all.png": png(2**31 - 1, 2**31 - 1, rows),
        "claims 65500.jpg": bytes(jpeg),
        "claims much.gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(200),
        "claims much.webp": b"RIFF\x40\0\0\0WEBPVP8L\x20\0\0\0\x2f\xff\xff\xff\x0f" + bytes(60),
        "claims much.bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, *[0] * 5),
        "claims much.ppm": b"P6 99999999 99999999 255\n" + bytes(100),
        "claims much.tga": bytes([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 24, 0]) + bytes(50),
        "text of 400 MB.png": png(64, 64, rows, _chunk(b"zTXt", b"a\0\0" + zeros(400))),
        "profile of 400 MB.png": png(64, 64, rows, _chunk(b"iCCP", b"a\0\0" + zeros(400))),
        "one pixel.png": saved(Image.new("RGB", (1, 1)), "PNG"),
        "a line.png": saved(Image.new("RGB", (60_000, 1)), "PNG"),
        "a column.png": saved(Image.new("RGB", (1, 60_000)), "PNG"),
        "seven.bmp": saved(Image.new("RGB", (7, 7)), "BMP"),
        "no size.png": png(0, 0, rows),
        "offset behind the end.tif": bytes(tiff[:4]) + b"\xff\xff\xff\x7f" + bytes(tiff[8:]),
        "many entries.tif": bytes(many),
        "empty.jpg": b"",
    }


def foreign(image: Image.Image) -> dict[str, bytes]:
    """Files with the ending of an image that are none, or none of a kind that is read."""
    dicom = bytes(128) + b"DICM" + b"\x02\0\0\0UL\x04\0" + bytes(400)
    big = b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0" + bytes(200)
    return {
        "text.jpg": b"this is no image\n" * 90,
        "page.png": b"<!doctype html><title>404</title>" * 30,
        "drawing.png": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "packed.jpg": b"PK\x03\x04" + bytes(500),
        "program.bmp": b"MZ" + bytes(800),
        "print.jpg": b"%PDF-1.7\n" + bytes(300),
        "sheet.tif": b"path,label\na.jpg,b\n",
        "medical.jpg": dicom,
        "medical.tif": dicom,
        "large.tif": big,
        "half a head.png": b"\x89PNG\r\n\x1a\n\0\0",
        "two bytes.jpg": b"\xff\xd8",
        "no pixels.jpg": b"\xff\xd8\xff\xd9",
        "line ends.png": saved(image, "PNG").replace(b"\r\n", b"\n"),
        "zeros.jpg": bytes(5000),
        "float beyond.tif": saved(Image.fromarray(np.full((40, 40), 7.5, np.float32)), "TIFF"),
        "not a number.tif": saved(Image.fromarray(np.full((40, 40), np.nan, np.float32)), "TIFF"),
        "beyond 16 bits.tif": saved(Image.fromarray(np.full((40, 40), 70_000, np.int32)), "TIFF"),
    }


def odd(image: Image.Image) -> dict[str, bytes]:
    """Files that hold the picture in another colour space, depth or alpha: read, with nearly its pixels or less."""
    grey = np.asarray(image.convert("L")).astype(np.uint16)
    clear = image.convert("RGBA")
    clear.putalpha(0)
    texts = PngInfo()
    texts.add_text("ImageDescription", "x" * 1_200_000, zip=True)
    return {
        "colours of print.jpg": saved(image.convert("CMYK"), "JPEG", quality=95),
        "colours of print.tif": saved(image.convert("CMYK"), "TIFF"),
        "lab.tif": saved(image.convert("RGB").convert("YCbCr"), "TIFF"),
        "grey.jpg": saved(image.convert("L"), "JPEG", quality=95),
        "grey 16.png": saved(Image.fromarray(grey * 257), "PNG"),
        "grey 16.tif": saved(Image.fromarray(grey * 257), "TIFF"),
        "grey 12.tif": saved(Image.fromarray(grey * 16), "TIFF"),
        "float.tif": saved(Image.fromarray((grey / 255).astype(np.float32)), "TIFF"),
        "two colours.png": saved(image.convert("1"), "PNG"),
        "all clear.png": saved(clear, "PNG"),
        "grey and alpha.png": saved(image.convert("LA"), "PNG"),
        "long text.png": saved(image, "PNG", pnginfo=texts),
    }


def damaged(sound: dict[str, bytes]) -> Iterator[tuple[str, bytes, str]]:
    """Files cut at every kilobyte, and files with zeros or flipped bits in them."""
    draw = random.Random(1)
    for name, data in sound.items():
        if not name.startswith(("plain", "progressive", "lossless", "lzw", "packed", "moving", "restart", "adaptive")):
            continue
        stem, _, ending = name.rpartition(".")
        step = 1024 if len(data) < 60_000 else 8192
        for size in range(step, len(data), step):
            yield f"{stem} cut at {size}.{ending}", data[:size], SAME
        yield f"{stem} without its last byte.{ending}", data[:-1], SAME
        if ending in ("jpg", "png") and stem != "moving":  # JPEG has no checksum
            middle, zeroed = len(data) // 2, REFUSED if ending == "png" else ANY
            yield f"{stem} with zeros.{ending}", data[:middle] + bytes(1500) + data[middle + 1500 :], zeroed
        for number in range(4):
            flipped = bytearray(data)
            flipped[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            yield f"{stem} flipped {number}.{ending}", bytes(flipped), SAME if ending == "png" else ANY


def hostile(image: Image.Image) -> Iterator[tuple[str, bytes, str]]:
    """Every file: name, content, and what must become of it."""
    sound = sound_files(image)
    yield from ((name, data, READ) for name, data in sound.items())
    yield from (
        (name, data, ANY if "400 MB" in name or "many" in name else REFUSED) for name, data in bombs(image).items()
    )
    yield from ((name, data, REFUSED) for name, data in foreign(image).items())
    yield from ((name, data, ANY) for name, data in odd(image).items())
    kinds = {"jpg": "plain.png", "png": "plain.jpg", "bmp": "lzw.tif", "tif": "plain.bmp", "webp": "plain.jpg"}
    yield from ((f"really {name}.{ending}", sound[name], READ) for ending, name in kinds.items())
    yield from damaged(sound)


NAMES = (
    *(
        "new\nline",
        "car\rriage",
        "t\tab",
        "\x1b[31mred",
        "quo'te",
        'quo"te',
        "com,ma",
        "=cmd|'calc'!A0",
        "+1",
        "-rf",
        "@x",
    ),
    *("\u202egpj.exe", "\U0001f9ec", "e\u0301", "\u00e9", "n" * 240, " blank", "%s%n", "{0}", "[red]a[/]", "<script>"),
    *("a\\b", "a;b", "con", "100%", "#", "~", "$(touch x)", "`id`", "a&b", "\ufeff", "null", "\u2028", "*", "?", ":"),
)


def write_all(folder: Path) -> dict[str, str]:
    """Write every file into two classes of a folder, with pipes, devices and links: path -> what must become of it."""
    image, expected = picture(), {}
    rgb = saved(image, "PNG")

    def put(path: str, data: bytes, what: str) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
        expected[path] = what

    for number, (name, data, what) in enumerate(hostile(image)):
        put(f"{'ab'[number % 2]}/{name}", data, what)
    for name in NAMES:
        put(f"names/{name}.png", rgb, READ)
    (folder / "names" / os.fsdecode(b"\xff\xfe.png")).write_bytes(rgb)  # no UTF-8
    links = folder / "links"
    links.mkdir()
    (folder.parent / "outside.png").write_bytes(rgb)
    os.mkfifo(links / "pipe.png")
    for name, target in (
        *(("zero.png", "/dev/zero"), ("passwd.png", "/etc/passwd"), ("nowhere.png", "nothing"), ("one.png", "two.png")),
        *(("two.png", "one.png"), ("round", "../links"), ("up", ".."), ("outside.png", "../../outside.png")),
    ):
        (links / name).symlink_to(target)
    (links / "folder.png").mkdir()
    expected |= {f"links/{name}.png": REFUSED for name in ("pipe", "zero", "passwd", "nowhere", "one", "two")}
    expected["links/outside.png"] = READ
    put("links/own.png", rgb, READ)
    for name in ("slide.svs", "slide.ndpi", "series.dcm"):
        put(f"a/{name}", b"II*\0" + bytes(100), REFUSED)
    return expected


def same(pixels: np.ndarray, image: Image.Image, name: str) -> bool:
    """Whether pixels, uint8 (3, height, width), are the picture's, up to lossy compression."""
    truth = np.asarray(image).astype(int)
    if pixels.shape != (3, *truth.shape[:2]):
        return False
    most = 40 if name.rpartition(".")[2] in _LOSSY or "adaptive" in name or "really" in name else 0
    blocks = np.abs(pixels.transpose(1, 2, 0).astype(int) - truth).reshape(HEIGHT // 8, 8, WIDTH // 8, 8, 3)
    return bool(blocks.mean((1, 3, 4)).max() <= most / 2)
