"""A bundle's files against its checksums, and every field of `bundle.json` missing, of another type or out of range."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ball_features.bundles.bundle import read_bundle
from ball_features.bundles.sums import SUMS, changed_files, write_checksums
from ball_features.errors import BallError, DataError

SOURCE = Path(__file__).parent.parent / "data" / "v0.1.0" / "bundles" / "mlp"
# Fields whose absence means the default of an earlier version, and texts that name things which are looked up later.
OPTIONAL = {
    "weights", "input_px", "seed", "resize", "overlay_mask", "view_seed", "cache_fingerprint", "protocol", "left_out",
    "train_images", "validation_images", "ball_version", "notes", "test",
}  # fmt: skip
WRONG = (None, {}, True, 1e308, float("nan"), [[]], -1)


@pytest.fixture
def bundle(tmp_path):
    return Path(shutil.copytree(SOURCE, tmp_path / "mlp"))


def test_every_flipped_bit_of_every_file_is_found(bundle):
    write_checksums(bundle)
    read_bundle(bundle)
    draw = np.random.default_rng(0)
    for path in sorted(bundle.iterdir()):
        data = path.read_bytes()
        for place in draw.integers(0, len(data), 10).tolist():
            changed = bytearray(data)
            changed[place] ^= 1 << int(draw.integers(8))
            path.write_bytes(changed)
            assert changed_files(bundle), (path.name, place)
            with pytest.raises(BallError):
                read_bundle(bundle)
        path.write_bytes(data)
    assert changed_files(bundle) == []


def test_missing_and_further_files_are_found(bundle):
    assert changed_files(bundle) is None  # of an earlier version
    write_checksums(bundle)
    (bundle / "parameters.json").write_text("{}")
    assert changed_files(bundle) == ["parameters.json"]
    (bundle / "reference.safetensors").unlink()
    with pytest.raises(DataError):
        read_bundle(bundle)
    assert changed_files(bundle) == ["parameters.json", "reference.safetensors"]
    (bundle / SUMS).write_bytes(b"\xff")
    assert changed_files(bundle) == [SUMS]


@pytest.mark.slow
def test_every_field_is_checked(bundle):
    file = bundle / "bundle.json"
    sound = json.loads(file.read_text())
    accepted = []
    for name in sound:
        for value in ("missing", *WRONG):
            changed = {key: item for key, item in sound.items() if key != name}
            file.write_text(json.dumps(changed if value == "missing" else changed | {name: value}))
            try:
                read_bundle(bundle)
            except BallError:
                continue
            accepted.append((name, value))
    assert {value for _, value in accepted} <= {"missing", None}
    assert {name for name, _ in accepted} <= OPTIONAL


def test_every_figure_is_a_number(bundle):
    file = bundle / "bundle.json"
    sound = json.loads(file.read_text())
    names = [*sound["test"], *((0, name) for name in sound["test"]["sets"][0])]
    for name in names:
        for value in (None, {}, [], "0.5", True):
            changed = json.loads(json.dumps(sound))
            if isinstance(name, str):
                changed["test"][name] = value
            else:
                changed["test"]["sets"][0][name[1]] = value
            file.write_text(json.dumps(changed))
            if name == "sets" and value == []:
                assert read_bundle(bundle).facts.test.sets == ()
                continue
            with pytest.raises(DataError, match="damaged bundle"):
                read_bundle(bundle)


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", 0), ("classes", ["a", "a", "b", "c"]), ("estimator_classes", [0, 1, 2, 9]), ("precision", "fp8"),
     ("input_px", 10**9), ("input_px", 16384), ("model_file", "../../x.joblib")],
)  # fmt: skip
def test_values_out_of_range_are_refused(bundle, name, value):
    file = bundle / "bundle.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
    with pytest.raises(DataError):
        read_bundle(bundle)


@pytest.mark.parametrize("change", ["short", "unknown", "fractions", "sound"])
def test_classes_of_training_images_must_fit(bundle, change):
    from safetensors.numpy import load, save

    file = bundle / "reference.safetensors"
    arrays = load(file.read_bytes())
    codes = np.arange(len(arrays["train"])) % 4
    wrong = {"short": codes[:-1], "unknown": np.where(codes == 3, 7, codes), "fractions": codes / 2, "sound": codes}
    file.write_bytes(save(arrays | {"train_class": np.ascontiguousarray(wrong[change])}))
    if change == "sound":
        assert read_bundle(bundle).train_class.tolist() == codes.tolist()
    else:
        with pytest.raises(DataError, match="train_class"):
            read_bundle(bundle)
