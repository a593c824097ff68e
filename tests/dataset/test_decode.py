import dataclasses
import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ball_features.dataset.decode import decode, decode_bytes, may_pass, read_file
from ball_features.dataset.manifest import scan
from ball_features.errors import ImageError
from ball_features.extraction.loading import load_image


@pytest.fixture(scope="module")
def picture():
    rng = np.random.default_rng(0)
    smooth = rng.uniform(40, 220, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(smooth).resize((80, 60), Image.Resampling.BICUBIC)


def saved(image, kind, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rgb(data: bytes) -> np.ndarray:
    tensor = decode_bytes(data)
    assert str(tensor.dtype) == "torch.uint8"
    assert tensor.is_contiguous()
    return tensor.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_kinds_are_exact(picture, kind):
    assert np.array_equal(rgb(saved(picture, kind)), np.asarray(picture))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 60}])
def test_jpeg_agrees_with_pillow(picture, options):
    data = saved(picture, "JPEG", **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.array_equal(rgb(data), expected)


def test_grey_and_cmyk_jpeg(picture):
    grey = rgb(saved(picture.convert("L"), "JPEG", quality=95))
    assert np.abs(grey.astype(int) - np.asarray(picture.convert("L"))[..., None]).max() <= 6
    cmyk = rgb(saved(picture.convert("CMYK"), "JPEG", quality=95))
    assert np.abs(cmyk.astype(int) - np.asarray(picture)).mean() < 4


def test_sixteen_bits_are_scaled_by_their_full_range():
    values = np.linspace(0, 30_000, 900, dtype=np.uint16).reshape(30, 30)
    for kind in ("PNG", "TIFF"):
        got = rgb(saved(Image.fromarray(values), kind))
        assert np.array_equal(got[..., 0], np.round(values / 257).astype(np.uint8))
        assert np.array_equal(got[..., 0], got[..., 2])


def test_palette_transparency_and_bilevel(picture):
    palette = picture.convert("P", palette=Image.Palette.ADAPTIVE)
    assert np.array_equal(rgb(saved(palette, "PNG")), np.asarray(palette.convert("RGB")))
    clear = picture.convert("RGBA")
    clear.putalpha(0)
    assert np.array_equal(rgb(saved(clear, "PNG")), np.asarray(picture))  # all transparent: the colours are meant
    clear.putalpha(Image.fromarray(np.arange(4800, dtype=np.uint8).reshape(60, 80) % 2))
    assert np.array_equal(rgb(saved(clear, "PNG")), np.asarray(picture))  # a mask of 0 and 1, not of 0 and 255
    alpha = np.full((60, 80), 255, np.uint8)
    alpha[:20] = 0
    clear.putalpha(Image.fromarray(alpha))
    assert (rgb(saved(clear, "PNG"))[:20] == 255).all()
    assert np.array_equal(rgb(saved(clear, "PNG"))[20:], np.asarray(picture)[20:])
    grey_alpha = Image.new("LA", (20, 20), (0, 128))
    assert abs(int(rgb(saved(grey_alpha, "PNG"))[0, 0, 0]) - 127) <= 1
    assert set(np.unique(rgb(saved(picture.convert("1"), "PNG")))) <= {0, 255}


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright(picture, kind, orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(picture, kind, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")).astype(int)
    got = rgb(data)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 3


def test_upright_by_xmp_alone(picture):
    turned = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description tiff:Orientation="6" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"/></rdf:RDF></x:xmpmeta>'
    )
    assert rgb(saved(picture, "JPEG")).shape == (60, 80, 3)
    assert rgb(saved(picture, "JPEG", xmp=turned)).shape == (80, 60, 3)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP"])
def test_truncated_files_are_refused(picture, kind, share):
    data = saved(picture.resize((200, 200)), kind)
    with pytest.raises(ImageError):
        decode_bytes(data[: int(share * len(data))])


@pytest.mark.slow
def test_absurd_sizes_and_no_images():
    with pytest.raises(ImageError, match="megapixels"):
        decode_bytes(saved(Image.new("1", (20_000, 20_000)), "PNG"))
    with pytest.raises(ImageError, match="expected at least 8"):
        decode_bytes(saved(Image.new("RGB", (300, 2)), "JPEG"))
    with pytest.raises(ImageError, match="not an image"):
        decode_bytes(b"hello")
    with pytest.raises(ImageError, match="empty"):
        decode_bytes(b"")


def test_files(tmp_path, picture):
    with pytest.raises(ImageError, match="cannot be read"):
        decode(tmp_path / "no.png")
    picture.save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png").shape == (3, 60, 80)


def test_trailing_bytes_do_no_harm(picture):
    assert decode_bytes(saved(picture, "JPEG") + b"\0" * 100).shape == (3, 60, 80)


@pytest.mark.slow
def test_png_with_odd_metadata_is_read(picture):
    texts = {"long": PngInfo(), "many": PngInfo()}
    texts["long"].add_text("ImageDescription", "x" * 2_000_000, zip=True)
    for number in range(80):
        texts["many"].add_text(f"part {number}", "y" * 1_000_000, zip=True)
    for info in texts.values():
        assert np.array_equal(rgb(saved(picture, "PNG", pnginfo=info)), np.asarray(picture))
    plain = saved(picture, "PNG")
    for chunk in (b"iCCP\0\0", b"zTXtkey\0\0broken", b"gAMA\0"):
        length = len(chunk) - 4
        odd = length.to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        assert np.array_equal(rgb(plain[:33] + odd + plain[33:]), np.asarray(picture))
    with pytest.raises(ImageError, match="damaged"):
        decode_bytes(plain[: len(plain) // 2] + bytes(40) + plain[len(plain) // 2 + 40 :])


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("place", [0.4, 0.6, 0.8])
def test_rot_inside_a_jpeg_is_noticed(subsampling, place):
    noise = np.random.default_rng(0).normal(128, 40, (256, 256, 3)).clip(0, 255).astype(np.uint8)
    data = bytearray(saved(Image.fromarray(noise), "JPEG", quality=92, subsampling=subsampling))
    start = int(place * len(data))
    data[start : start + 2500] = bytes(2500)
    with pytest.raises(ImageError, match="damaged"):
        decode_bytes(bytes(data))


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "JPEG2000", "AVIF", "TGA", "PPM", "PCX", "QOI"])
def test_other_kinds_are_read(picture, kind):
    from PIL import features

    if kind in ("WEBP", "AVIF", "JPEG2000") and not features.check({"JPEG2000": "jpg_2000"}.get(kind, kind.lower())):
        pytest.skip(f"this Pillow has no {kind}")
    options = {"WEBP": {"lossless": True}}.get(kind, {})
    got = rgb(saved(picture, kind, **options)).astype(int)
    assert np.abs(got - np.asarray(picture)).mean() < 12


def test_only_files_of_a_bounded_size_are_read(tmp_path):
    """A pipe would never end, a file of 20 GB would fill the memory."""
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="is no regular file"):
        read_file(tmp_path / "pipe.png")
    with (tmp_path / "large.tif").open("wb") as file:
        file.truncate(20_000_000_000)
    with pytest.raises(ImageError, match="has 20000 MB, more than 600"):
        read_file(tmp_path / "large.tif")


def test_only_what_is_bad_by_its_content_is_remembered(tmp_path, monkeypatch):
    for name, colour in (("a/1", "red"), ("a/2", "blue"), ("b/1", "green"), ("b/2", "pink")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (16, 16), colour).save(tmp_path / f"{name}.png")
    manifest = scan(tmp_path)
    Image.new("RGB", (16, 16), "black").save(tmp_path / "a/1.png")  # after it was hashed
    (tmp_path / "b/1.png").unlink()
    changed, gone = load_image(manifest, 0, 16), load_image(manifest, 2, 16)
    assert changed == "changed while it was read; run the command again"
    assert str(gone).startswith("cannot be read")
    monkeypatch.setattr("PIL.Image.open", lambda file, **more: (_ for _ in ()).throw(MemoryError))
    full = load_image(manifest, 1, 16)
    assert full == "cannot be read (not enough memory)"
    kept = dataclasses.replace(manifest, label=("a", "b", "c", "d"))
    for reason, remembered in ((changed, False), (gone, False), (full, False), ("its segmented twin is damaged", False),
                               ("is damaged or truncated (x)", True)):  # fmt: skip
        assert bool(kept.without({0: str(reason)}).rejected[0].sha256) == remembered


def tiled_tiff(side=64, tile=16):
    """A grey TIFF file in tiles, as whole-slide files are."""
    count = (side // tile) ** 2
    tags = [(256, side), (257, side), (258, 8), (259, 1), (262, 1), (277, 1), (322, tile), (323, tile)]
    places = 8 + 2 + 12 * (len(tags) + 2) + 4
    pixels = places + 8 * count
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags]
    entries += [struct.pack("<HHII", tag, 4, count, places + 4 * count * n) for n, tag in enumerate((324, 325))]
    offsets = [pixels + tile * tile * number for number in range(count)]
    sizes = [tile * tile] * count
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)
    return head + struct.pack(f"<{2 * count}I", *offsets, *sizes) + bytes(range(256)) * count


def test_medical_files_are_named_with_what_to_do():
    assert decode_bytes(tiled_tiff()).shape == (3, 64, 64)
    with pytest.raises(ImageError, match="is 64 x 64 pixels in tiles, as whole-slide files are; cut it into fields"):
        decode_bytes(tiled_tiff(), 1000)
    for begin, name in ((bytes(128) + b"DICM", "DICOM"), (b"ZISRAWFILE" + bytes(200), "Zeiss slide")):
        with pytest.raises(ImageError, match=f"is a {name} file, .*convert it to PNG or TIFF") as caught:
            decode_bytes(begin + bytes(400))
        assert may_pass(str(caught.value))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # as the command line does
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"q" * 100, b"II*\0", b"II*\0\xff\xff\xff\x7f", b"MM\0*\0\0\0\x08\xff\xff"])
def test_exif_that_cannot_be_read_says_nothing_of_the_pixels(picture, kind, exif):
    options = {"lossless": True} if kind == "WEBP" else {}
    sound = rgb(saved(picture, kind, **options))
    assert np.array_equal(rgb(saved(picture, kind, exif=b"Exif\0\0" + exif, **options)), sound)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ...")]
)
def test_memory_that_is_short_while_an_image_is_turned_is_said(picture, monkeypatch, error):
    def short(*given):
        raise error

    for function in ("PIL.Image.Image.convert", "PIL.ImageOps.exif_transpose"):
        with monkeypatch.context() as patch, pytest.raises(ImageError, match="not enough memory") as caught:
            patch.setattr(function, short)
            decode_bytes(saved(picture, "PNG"))
        assert may_pass(str(caught.value))


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 92}), ("TIFF", {"compression": "tiff_lzw"})])
def test_libraries_write_nothing_of_a_damaged_image(kind, options, capfd):
    draw = np.random.default_rng(1)
    pixels = np.kron(draw.integers(0, 255, (30, 30, 3)), np.ones((8, 8, 1))) + draw.normal(0, 4, (240, 240, 3))
    data = saved(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), kind, **options)
    half = len(data) // 2
    damage = [b"\xff" * 300, b"\xff\xd9", bytes(1500), *(draw.bytes(500) for _ in range(5))]
    for change in damage:
        with pytest.raises(ImageError, match="is damaged"):
            decode_bytes(data[:half] + change + data[half + len(change) :])
    assert capfd.readouterr() == ("", "")
