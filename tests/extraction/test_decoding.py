"""JPEG files that a device decodes; here the device is the CPU, whose pixels are known, unless CUDA is there."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportFunctionMemberAccess=false

import dataclasses
import functools
import io
import os
import subprocess
import sys
import threading
import time
from importlib import metadata

import numpy as np
import pytest
import torch
from PIL import Image

from ball_features import ExtractConfig
from ball_features.dataset import jpeg
from ball_features.dataset.decode import decode, decode_bytes
from ball_features.dataset.manifest import scan
from ball_features.extraction import decoding
from ball_features.extraction.batch import Pipeline
from ball_features.extraction.decoding import decode_together, device_decoding_pays, forward_rate
from ball_features.extraction.engine import choose as choosing
from ball_features.extraction.engine.choose import Chooser
from ball_features.extraction.engine.deviation import Deviation
from ball_features.extraction.preprocessing import Preprocessing
from ball_features.extraction.weights import load_backbone

CPU = torch.device("cpu")


def saved(picture: np.ndarray, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def pictures():
    """Smooth, as smears are: with noise alone every decoder's chroma would be its own."""
    generator = np.random.default_rng(0)
    small = generator.integers(60, 230, (40, 12, 12, 3)).astype(np.uint8)
    return [np.asarray(Image.fromarray(item).resize((230 + row, 200), Image.Resampling.BICUBIC))
            for row, item in enumerate(small)]  # fmt: skip


@pytest.fixture
def folder(tmp_path, pictures):
    """40 images of two classes, of other sizes than the network's: JPEG, with two PNG, a turned and two damaged."""
    for row, picture in enumerate(pictures):
        file = tmp_path / "images" / "AB"[row % 2] / f"{row:02d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if row == 5:
            exif[0x0112] = 6
        file.write_bytes(saved(picture, "PNG" if row in (3, 17) else "JPEG", exif=exif if row == 5 else b""))
    for row in (8, 31):
        file = tmp_path / "images" / "AB"[row % 2] / f"{row:02d}.jpg"
        file.write_bytes(file.read_bytes()[:3000])
    return tmp_path / "images"


@pytest.mark.parametrize("installed", [0, 1], ids=["first", "last"])
def test_every_decoder_gives_the_pixels_of_pillow(pictures, installed, monkeypatch):
    found = jpeg._decoders()
    if not found:
        pytest.skip("no decoder but Pillow's")
    monkeypatch.setattr(jpeg, "_decoders", lambda: found[-installed:] if installed else found[:1])
    for options in ({}, {"subsampling": 2, "quality": 60}, {"progressive": True}):
        data = [saved(picture, **options) for picture in pictures[:3]]
        for content, got in zip(data, jpeg.decode_jpegs(data), strict=True):
            with Image.open(io.BytesIO(content)) as image:
                assert np.array_equal(got.permute(1, 2, 0), np.asarray(image))
            assert got.is_contiguous()


def test_without_any_decoder_pillow_is_left(pictures, monkeypatch):
    data = saved(pictures[0])
    expected = decode_bytes(data)
    monkeypatch.setattr(jpeg, "_decoders", lambda: ())
    assert jpeg.decode_jpegs([data]) is None
    assert torch.equal(decode_bytes(data), expected)


BROKEN = """
import io, sys
import numpy as np
from PIL import Image
from ball_features.dataset import jpeg
from ball_features.dataset.decode import decode_bytes
jpeg._load_torchcodec = lambda: None  # as without the extra
picture = np.full((30, 40, 3), 150, np.uint8)
file = io.BytesIO()
Image.fromarray(picture).save(file, "JPEG")
assert decode_bytes(file.getvalue()).shape == (3, 30, 40)
assert jpeg._decoders() == ()
from ball_features.errors import WeightsError
from ball_features.extraction.backbones import get_backbone
from ball_features.extraction.weights import load_backbone
try:
    load_backbone(get_backbone("mobilenet_v3_large"), "random")
except WeightsError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "failure", ["raise RuntimeError('operator torchvision::nms does not exist')", "raise OSError('undefined symbol')"]
)
def test_a_torchvision_that_fails_to_load_is_named_and_damages_no_file(failure, tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(failure)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", BROKEN], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "torchvision does not load" in done.stdout
    for name in ("torch", "torchvision"):
        assert f"{name} {metadata.version(name)}" in done.stdout


def test_a_decoder_that_fails_in_its_own_way_is_left_for_pillow(pictures, monkeypatch):
    def broken(contents, device):
        raise AttributeError("built without libjpeg")

    data = saved(pictures[0])
    expected = decode_bytes(data)
    monkeypatch.setattr(jpeg, "_decoders", lambda: (broken,))
    assert torch.equal(decode_bytes(data), expected)


def test_a_damaged_file_spoils_no_other(pictures):
    data = [saved(picture) for picture in pictures]
    data[20] = data[20][:3000]
    got = decode_together(data, CPU)
    assert "damaged or truncated" in got[20]
    for row in (0, 19, 21, 39):
        assert torch.equal(got[row], decode_bytes(data[row]))


@pytest.mark.slow
def test_the_pipeline_gives_the_same_wherever_files_are_decoded(folder):
    manifest = scan(folder)
    config = ExtractConfig(backbone="densenet121", weights="random", views=1, precision="fp32", dtype="float32")
    preprocessing = Preprocessing.from_config(config)
    make = functools.partial(
        Pipeline,
        manifest=manifest,
        preprocessing=dataclasses.replace(preprocessing, backbone=dataclasses.replace(preprocessing.backbone, dim=3)),
        engine=lambda images: images.mean((2, 3)),
        device=CPU,
        batch=len(manifest.path),
        shortcuts=("colour",),
    )
    cores, device = make(), make(decodes=True)
    slots = np.arange(len(manifest.path))
    loaded = [device.load(row) for row in slots]
    kinds = {kind: sum(isinstance(item, kind) for item in loaded) for kind in (bytes, torch.Tensor, str)}
    assert kinds == {bytes: 35, torch.Tensor: 3, str: 2}
    assert all("truncated" in item for item in loaded if isinstance(item, str))
    expected, got = cores.compute(slots, [cores.load(row) for row in slots]), device.compute(slots, loaded)
    assert got.rows.tolist() == expected.rows.tolist()
    assert got.bad == expected.bad
    assert len(got.bad) == 2
    assert np.array_equal(got.embeddings, expected.embeddings)
    assert np.array_equal(got.shortcuts["colour"], expected.shortcuts["colour"])


@pytest.mark.slow
def test_the_cores_decode_as_long_as_they_keep_up(folder):
    files = sorted((folder / "B").iterdir())[:8]
    slow = lambda file: (time.sleep(0.03), decode(file))  # noqa: E731
    pays = functools.partial(device_decoding_pays, files, workers=1, device=CPU)
    assert pays(load=slow, rate=1.0) == ""
    assert "1 threads decode" in pays(load=slow, rate=1e6)
    assert pays(load=lambda file: None, rate=1e9) == ""  # the device would be the slower one
    assert device_decoding_pays([], slow, 1e6, 1, CPU) == ""


def test_a_device_that_cannot_decode_is_not_asked_again(folder, monkeypatch):
    files = sorted((folder / "B").iterdir())[:8]
    monkeypatch.setattr(decoding, "decode_jpegs", lambda data, device: None)
    assert device_decoding_pays(files, lambda file: time.sleep(0.03), 1e6, 1, CPU) == ""


def test_forward_rate_counts_images():
    calls = []

    def forward():
        calls.append(1)
        time.sleep(0.01)

    assert 100 < forward_rate(forward, 8, CPU) < 800
    assert len(calls) == 6


@pytest.mark.slow
def test_pixels_too_different_are_refused(folder, monkeypatch):
    """A decoder whose picture leads to another embedding is not used, however fast it is."""
    said: list[str] = []
    config = ExtractConfig(backbone="densenet121", weights="random", views=1, precision="fp32")
    wanted = Preprocessing.from_config(config)
    module = load_backbone(wanted.backbone, "random", 0)
    chooser = Chooser(module, wanted, scan(folder), CPU, 0, 1, said.append)
    engine = chooser.build("fp32")
    files = [file for file in sorted(folder.glob("*/*")) if file.name[:2] in ("00", "01", "03")]
    monkeypatch.setattr(choosing, "device_decoding_pays", lambda *args: "it is faster")
    monkeypatch.setattr(choosing, "forward_rate", lambda *args: 100.0)
    taken: list[torch.Tensor] = []

    def held(engine, pixels):
        taken.append(pixels)
        return Deviation(float(held.cosine), 0.0, len(pixels))

    held.cosine = 0.9999
    assert chooser.decoding_deviation(engine, files, held) == Deviation(0.9999, 0.0, 3)
    assert taken[0].shape == (3, 3, 224, 224)
    assert said == ["JPEG files are decoded on the GPU: it is faster."]
    held.cosine = 0.9
    assert chooser.decoding_deviation(engine, files, held) is None
    assert "too differently" in said[-1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_cuda_decodes_nearly_the_same_pixels(pictures):
    data = [saved(picture) for picture in pictures]
    device = torch.device("cuda")
    got = jpeg.decode_jpegs(data, device)
    assert got is not None
    for content, pixels in zip(data, got, strict=True):
        assert pixels.device.type == "cuda"
        assert (pixels.cpu().float() - decode_bytes(content).float()).abs().mean() < 1.5
    together: list = []
    threads = [threading.Thread(target=lambda: together.append(decode_together(data, device))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(one, other) for one, other in zip(*together, strict=True))
