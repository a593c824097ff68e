"""Odd, damaged and hostile images: each is read as what it is, or rejected with a reason; never a crash or a hang."""

import os
from pathlib import Path

import pytest

from ball_features.cache import read_cache
from ball_features.dataset.decode import decode_bytes
from ball_features.errors import ImageError
from tests import hostile
from tests.commands import TINY_DENSENET, ball
from tests.tiny import TINY

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of odd metadata
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def image():
    return hostile.picture()


def fault(name, data, what, image):
    """What is wrong with how a file is read, or ""."""
    try:
        pixels = decode_bytes(data).numpy()
    except ImageError as error:
        return f"rejected: {error}" if what == hostile.READ else ""
    if what == hostile.REFUSED:
        return "read"
    if what in (hostile.READ, hostile.SAME) and not hostile.same(pixels, image, name):
        return "read with other pixels"
    return ""


@pytest.mark.slow
def test_a_sample_of_hostile_files(image):
    files = [own for own in hostile.hostile(image) if "400 MB" not in own[0] and "wide and high" not in own[0]]
    found = {name: said for name, data, what in files[::6] if (said := fault(name, data, what, image))}
    assert not found


@pytest.mark.slow
def test_every_hostile_file_is_decoded_or_rejected(image):
    files = list(hostile.hostile(image))
    assert len(files) >= 300
    found = {name: said for name, data, what in files if (said := fault(name, data, what, image))}
    assert not found


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="pipes and such names are those of Unix")
def test_extract_goes_through_all_of_them(tmp_path):
    folder, out = tmp_path / "images", tmp_path / "a.h5"
    expected = hostile.write_all(folder)
    command = ["extract", str(folder), "--out", str(out), "--backbone", TINY, "--weights", "random"]
    command += ["--input-px", "64", "--precision", "fp32", "--views", "1", "--layout", "class"]
    done = ball(*command, cwd=ROOT, before=TINY_DENSENET)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr + done.stdout
    cache = read_cache(out)
    there, rejected = set(cache.path.tolist()), {item.path: item for item in cache.rejected}
    assert not there & rejected.keys()
    wrong = []
    for path, what in expected.items():
        if what == hostile.READ and path not in there:
            wrong.append((path, rejected.get(path)))
        if what == hostile.REFUSED and path in there:
            wrong.append((path, "read"))
        if path not in there and path not in rejected:
            wrong.append((path, "lost"))
    assert not wrong
    assert all(item.reason for item in rejected.values())
