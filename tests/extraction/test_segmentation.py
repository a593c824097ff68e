"""Nuclei: the published thresholds against a plain reading of them, Otsu's against scikit-image, numbers by hand."""

import colorsys
import csv
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab
from skimage.filters import threshold_otsu

from ball_features.errors import ConfigError, DataError
from ball_features.extraction.segment import segment_folder
from ball_features.extraction.segmentation import apply_segmented, clean_masks, nuclei_numbers, nucleus_mask

RNG = np.random.default_rng(0)


def batch(pixels):
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def test_hsv_reads_the_published_thresholds_on_exchanged_channels():
    pixels = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    pixels[:20] = np.clip(np.array([120, 90, 190]) + RNG.integers(-45, 45, (20, 50, 3)), 0, 255)
    expected = np.zeros(pixels.shape[:2], dtype=bool)
    near = np.zeros_like(expected)  # a rounding away from a threshold
    for place in np.ndindex(*expected.shape):
        red, green, blue = (int(value) for value in pixels[place])
        h, s, v = colorsys.rgb_to_hsv(blue / 255, green / 255, red / 255)
        hue, saturation = (h * 180 + 12) % 180, s * 255
        expected[place] = round(hue) % 180 < 14 and round(saturation) >= 50 and v * 255 >= 49.99
        near[place] = min(abs(hue - 13.5), abs(hue - 179.5), abs(saturation - 49.5)) < 0.01
    got = nucleus_mask(batch(pixels))[0].numpy()
    assert (got == expected)[~near].all()
    assert 0.02 < expected.mean() < 0.9


def test_otsu_is_that_of_scikit_image():
    pixels = np.full((60, 60, 3), (225, 200, 210), dtype=np.uint8)
    pixels[15:40, 10:45] = (110, 60, 150)
    pixels = np.clip(pixels.astype(int) + RNG.integers(-12, 12, pixels.shape), 0, 255).astype(np.uint8)
    a = np.round(rgb2lab(pixels)[..., 1] + 128).astype(int)
    expected = a > threshold_otsu(a)
    assert (nucleus_mask(batch(pixels), "otsu")[0].numpy() == expected).mean() > 0.999


def test_cleaning_fills_holes_and_drops_specks():
    mask = torch.zeros(1, 100, 100, dtype=torch.bool)
    mask[0, 20:50, 20:50] = True
    mask[0, 30:35, 30:35] = False
    mask[0, 0:40, 0] = True  # touches the edge and stays
    mask[0, 80, 80] = True
    cleaned = clean_masks(mask)[0]
    assert cleaned[20:50, 20:50].all()
    assert cleaned[:40, 0].all()
    assert not cleaned[80, 80]


def test_nuclei_numbers_by_hand():
    pixels = np.full((100, 100, 3), 235, dtype=np.uint8)
    pixels[10:30, 10:30] = (120, 90, 190)
    pixels[60:70, 60:70] = (120, 90, 190)
    pixels[80:90, 10:50] = (230, 150, 160)  # a red cell: stained, no nucleus
    pixels[95, 95] = (120, 90, 190)  # a speck
    area, count, mean, sd, largest, share = nuclei_numbers(batch(pixels))[0].tolist()
    assert count == 2
    assert [area, mean, sd, largest] == pytest.approx([0.05, 0.025, 0.015, 0.04])
    assert share == pytest.approx(500 / 901)
    assert nuclei_numbers(torch.ones(2, 3, 50, 50)).tolist() == [[0.0] * 6] * 2


def test_segmented_is_black_elsewhere():
    pixels = np.full((32, 32, 3), 235, dtype=np.uint8)
    pixels[4:12, 4:12] = (120, 90, 190)
    image = batch(pixels)
    got = apply_segmented(image, image)
    assert torch.equal(got[..., 4:12, 4:12], image[..., 4:12, 4:12])
    assert got.sum() == image[..., 4:12, 4:12].sum()


def test_unknown_method():
    with pytest.raises(ConfigError, match="hsv, otsu"):
        nucleus_mask(torch.zeros(1, 3, 8, 8), "watershed")


@pytest.mark.slow
def test_a_folder(tmp_path, smears):
    result = segment_folder(smears, tmp_path / "out", clean=True)
    assert (result.images, result.rejected) == (48, ())
    written = sorted((tmp_path / "out").rglob("*.png"))
    assert len(written) == 48
    source = next(path for path in smears.rglob("*") if path.stem == written[0].stem)
    with Image.open(written[0]) as after, Image.open(source) as before:
        kept, own = np.asarray(after), np.asarray(before.convert("RGB"))
    assert kept.shape == own.shape
    assert (kept[kept.any(-1)] == own[kept.any(-1)]).all()
    with (tmp_path / "out" / "nuclei.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 48
    assert set(rows[0]) == {"path", "area", "count", "mean_area", "sd_of_area", "largest_area", "share_of_stained_area"}
    with pytest.raises(ConfigError, match="a folder outside of it"):
        segment_folder(smears, smears / "Segmented")


def test_two_images_of_one_name(tmp_path):
    for name in ("A/1.png", "A/1.bmp", "B/1.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16)).save(tmp_path / "in" / name)
    with pytest.raises(DataError, match=r"both become A/1\.png"):
        segment_folder(tmp_path / "in", tmp_path / "out")


@pytest.mark.slow
@pytest.mark.real_data
def test_published_masks_are_met(real_images):
    """The published notebook's own thresholds reach a median of 0.84 over all images."""
    overlaps = []
    for path in sorted(real_images.rglob("*.jpg"))[::40]:
        twin = real_images.parent / "Segmented" / path.relative_to(real_images)
        with Image.open(path) as image, Image.open(twin) as other:
            mask = nucleus_mask(batch(np.array(image)))[0].numpy()
            theirs = np.array(other).max(-1) > 40
        overlaps.append((mask & theirs).sum() / (mask | theirs).sum())
    assert np.median(overlaps) > 0.8


@pytest.fixture
def pictures(tmp_path):
    """A folder of images, and the pictures of an earlier run."""
    for name in ("A/1.png", "A/2.png", "B/3.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((32, 32, 3), 235, dtype=np.uint8)
        pixels[4:12, 4:12] = (120, 90, 190)
        Image.fromarray(pixels).save(tmp_path / "in" / name)
    segment_folder(tmp_path / "in", tmp_path / "out")
    return tmp_path / "in", tmp_path / "out"


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ...")]
)
def test_memory_that_is_short_leaves_the_earlier_table(pictures, monkeypatch, error):
    images, out = pictures
    before = (out / "nuclei.csv").read_bytes()

    def short(*given):
        raise error

    monkeypatch.setattr("ball_features.extraction.segment.nucleus_mask", short)
    with pytest.raises(DataError, match=r"3 rejected; the first, A/1\.png, cannot be read \(not enough memory\)"):
        segment_folder(images, out)
    assert (out / "nuclei.csv").read_bytes() == before


def test_what_does_not_fit_beside_others_is_made_alone(pictures, monkeypatch):
    images, out = pictures
    before = (out / "nuclei.csv").read_bytes()
    failed = []

    def short(pixels, method):
        if len(failed) < 2:
            failed.append(1)
            raise MemoryError
        return nucleus_mask(pixels, method)

    monkeypatch.setattr("ball_features.extraction.segment.nucleus_mask", short)
    counts = []
    result = segment_folder(images, out, progress=lambda done, of: counts.append((done, of)))
    assert (result.images, result.rejected, counts) == (3, (), [(1, 3), (2, 3), (3, 3)])
    assert (out / "nuclei.csv").read_bytes() == before


def test_an_error_in_between_leaves_a_table_that_is_true(pictures, monkeypatch):
    images, out = pictures
    before = (out / "nuclei.csv").read_text().splitlines()

    def stop(done, of):
        raise KeyboardInterrupt

    monkeypatch.setattr("ball_features.extraction.segment.core_count", lambda: 1)
    monkeypatch.setattr("ball_features.extraction.segment._TOGETHER", 1)
    Image.new("RGB", (32, 32), "white").save(images / "A" / "1.png")
    with pytest.raises(KeyboardInterrupt):
        segment_folder(images, out, progress=stop)
    after = (out / "nuclei.csv").read_text().splitlines()
    assert after[1].startswith("A/1.png,0,0,")
    assert after[0::2] + after[3:] == before[0::2] + before[3:]


def test_pictures_of_images_that_are_gone_stay_and_are_said(pictures):
    images, out = pictures
    rows = (out / "nuclei.csv").read_text().splitlines()
    (images / "A" / "1.png").unlink()
    for _ in range(2):
        result = segment_folder(images, out)
        assert (result.images, result.left) == (2, ("A/1.png",))
        assert (out / "A" / "1.png").is_file()
        assert (out / "nuclei.csv").read_text().splitlines() == [rows[0], *rows[2:], rows[1]]
    (out / "A" / "1.png").unlink()
    assert segment_folder(images, out).left == ()
    assert (out / "nuclei.csv").read_text().splitlines() == [rows[0], *rows[2:]]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="not every system bounds what a process maps")
def test_a_library_that_memory_is_too_short_for_is_no_fault_of_an_image(pictures):
    images, out = pictures
    before = (out / "nuclei.csv").read_bytes()
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (1 << 29, -1)); "
        "sys.argv = ['ball', 'segment', *sys.argv[1:]]; import ball_features.cli as c; c.main()"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(images), "--out", str(out)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "may map (0.5 GB) does not suffice" in ended.stderr
    assert "damaged" not in ended.stderr
    assert (out / "nuclei.csv").read_bytes() == before
