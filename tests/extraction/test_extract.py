"""Stage 1 on drawn smears: what is computed, what is kept, what a kill leaves behind."""

import random
import shutil
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from ball_features import ExtractConfig, extract, read_cache
from ball_features.cache import labelled_rows, lock_cache
from ball_features.errors import CacheBusyError, CacheError, ConfigError, DataError
from ball_features.extraction.engine.densenet import Engine
from ball_features.extraction.recipe import RECIPE_SETS
from tests.commands import TINY_DENSENET, ball, start
from tests.tiny import TINY

# A small network and small images, for the time they take.
pytestmark = pytest.mark.usefixtures("tiny_densenet")
SMALL = {"backbone": TINY, "weights": "random", "precision": "fp32", "input_px": 64}
CONFIG = ExtractConfig(**SMALL, views=1, dtype="float32", batch_size=4)


@pytest.fixture
def folder(tmp_path, few_smears):
    return shutil.copytree(few_smears, tmp_path / "images")


@pytest.mark.slow
def test_embeddings_agree_with_torchvision_alone(tmp_path, smears):
    """Reference: PIL, torchvision's module, ReLU, mean. Nothing of ours but the weights' seed."""
    extract(smears, tmp_path / "a.h5", replace(CONFIG, backbone="densenet121", input_px=0, limit=4, batch_size=2))
    cache = read_cache(tmp_path / "a.h5")
    torch.manual_seed(0)
    module = torchvision.models.densenet121(weights=None).eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for row, path in enumerate(cache.path):
        with Image.open(smears / path) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB"))).float() / 255
        batch = ((pixels - mean) / std).permute(2, 0, 1)[None]
        with torch.no_grad():
            expected = torch.relu(module.features(batch)).mean((2, 3))[0].numpy()
        got = cache.embeddings[row, 0]
        assert np.linalg.norm(got - expected) / np.linalg.norm(expected) < 1e-4
    assert cache.complete
    assert cache.view == ("plain",)
    assert set(cache.shortcuts) == {"colour", "histogram", "corner", "nuclei"}


def test_pixel_numbers_are_those_of_the_image(small_cache, smears):
    cache = read_cache(small_cache)
    with Image.open(smears / cache.path[3]) as image:
        small = image.convert("RGB").resize((96, 96), Image.Resampling.BILINEAR)
    pixels = np.asarray(small, dtype=np.float64) / 255
    colour = np.concatenate([pixels.mean((0, 1)), pixels.std((0, 1))])
    assert np.allclose(np.sort(cache.shortcuts["colour"][3]), np.sort(colour), atol=3e-3)


@pytest.mark.slow
def test_second_run_computes_nothing_and_changes_no_byte(tmp_path, few_smears):
    out = tmp_path / "a.h5"
    first = extract(few_smears, out, CONFIG)
    before = out.read_bytes()
    second = extract(few_smears, out, CONFIG)
    assert (first.computed, first.reused) == (first.images, 0)
    assert (second.computed, second.reused) == (0, first.images)
    assert out.read_bytes() == before


@pytest.mark.slow
def test_added_changed_and_removed_images_touch_only_their_rows(tmp_path, folder):
    out = tmp_path / "a.h5"
    extract(folder, out, CONFIG)
    old = read_cache(out)
    files = sorted(folder.glob("*/*.jpg"))
    files[0].unlink()
    with Image.open(files[1]) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(files[1], quality=95)
    with Image.open(files[2]) as image:
        image.rotate(90).save(files[2].with_name("new.png"))
    before = out.read_bytes()
    with pytest.raises(
        CacheError, match=r"1 are not in the folder or cannot be read .*Nothing was changed.*prune=True"
    ):
        extract(folder, out, CONFIG)
    assert out.read_bytes() == before
    done = extract(folder, out, CONFIG, prune=True)
    assert (done.computed, done.removed) == (2, 1)
    new = read_cache(out)
    assert new.complete
    places = {path: row for row, path in enumerate(old.path)}
    for row, path in enumerate(new.path):
        if path in places and new.sha256[row] == old.sha256[places[path]]:
            assert np.array_equal(new.embeddings[row], old.embeddings[places[path]])
            assert np.array_equal(new.shortcuts["corner"][row], old.shortcuts["corner"][places[path]])
    fresh = tmp_path / "fresh.h5"
    extract(folder, fresh, CONFIG)
    expected = read_cache(fresh)
    assert new.path.tolist() == expected.path.tolist()
    assert np.allclose(new.embeddings, expected.embeddings, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_moving_an_image_to_another_class_changes_its_label_only(tmp_path, folder):
    out = tmp_path / "a.h5"
    extract(folder, out, CONFIG)
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    moved = next(classes[0].glob("*.jpg"))
    moved.rename(classes[1] / "moved.jpg")
    assert extract(folder, out, CONFIG).computed == 0
    cache = read_cache(out)
    row = cache.path.tolist().index(f"{classes[1].name}/moved.jpg")
    assert cache.label[row] == classes[1].name


@pytest.mark.slow
def test_a_sheet_travels_with_the_cache(tmp_path, folder):
    out = tmp_path / "a.h5"
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    frame = {"path": paths, "Fall": [f"P{row % 3}" for row in range(len(paths))], "a/b": ["x"] * len(paths)}
    lines = []
    first = extract(folder, out, CONFIG, sheet=frame, log=lines.append)
    assert first.classes == tuple(lines[:2])
    assert lines[0].startswith("Classes: Benign")
    assert first.columns == ("patient", "a/b")
    cache = read_cache(out)
    assert cache.columns["patient"].tolist() == [f"P{paths.index(path) % 3}" for path in cache.path.tolist()]
    assert set(cache.columns["a/b"].tolist()) == {"x"}
    table = cache.frame()
    assert table["patient"].tolist() == cache.columns["patient"].tolist()
    assert list(table.columns[:3]) == ["path", "label", "sha256"]
    embeddings = cache.embeddings.copy()
    again = extract(folder, out, CONFIG)  # without the sheet nothing of it is lost
    assert (again.computed, set(again.columns)) == (0, {"patient", "a/b"})
    label = ["other" if row == 0 else "" if row == 1 else path.split("/")[0] for row, path in enumerate(paths)]
    third = extract(folder, out, CONFIG, sheet=frame | {"class": label, "Fall": ["Q"] * len(paths)})
    assert third.computed == 0
    cache = read_cache(out)
    assert dict(zip(cache.path.tolist(), cache.label.tolist(), strict=True)) == dict(zip(paths, label, strict=True))
    assert set(cache.columns["patient"].tolist()) == {"Q"}
    assert cache.attributes["fingerprint"] == read_cache(out).fingerprint
    assert np.array_equal(cache.embeddings, embeddings)
    left = labelled_rows(cache)
    assert (len(left.path), left.unlabelled) == (len(paths) - 1, 1)
    told = []
    extract(folder, out, CONFIG, log=told.append)  # the classes of the folders count again, which is said
    said = f"The class of 2 of {len(paths)} images is another one than in the cache: {paths[0]} was other, now "
    assert [line for line in told if line.startswith(said)]
    assert read_cache(out).label.tolist() == [path.split("/")[0] for path in read_cache(out).path.tolist()]
    assert len(left.embeddings) == len(left.columns["patient"]) == len(paths) - 1


@pytest.mark.slow
def test_a_file_that_cannot_be_read_once_is_tried_again(tmp_path, folder, monkeypatch):
    out = tmp_path / "a.h5"
    bad = next(folder.rglob("*.jpg"))
    own = Path.read_bytes

    def read(path):
        if path == bad:
            raise OSError(5, "Input/output error")
        return own(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    first = extract(folder, out, CONFIG)
    assert [(item.reason, item.sha256) for item in first.rejected] == [("cannot be read (Input/output error)", "")]
    monkeypatch.undo()
    second = extract(folder, out, CONFIG)
    assert (second.computed, second.rejected) == (1, ())


@pytest.mark.slow
def test_bad_files_are_listed_and_never_stop_the_run(tmp_path, folder):
    out = tmp_path / "a.h5"
    images = extract(folder, out, CONFIG).images
    some = sorted(folder.glob("*/*.jpg"))[0]
    (some.parent / "empty.jpg").write_bytes(b"")
    (some.parent / "text.png").write_text("not an image")
    (some.parent / "cut.jpg").write_bytes(some.read_bytes()[: some.stat().st_size // 2])
    done = extract(folder, out, CONFIG)
    assert done.images == images
    assert sorted(item.path.rpartition("/")[2] for item in done.rejected) == ["cut.jpg", "empty.jpg", "text.png"]
    assert all(item.reason for item in done.rejected)
    cache = read_cache(out)
    assert cache.complete
    assert len(cache.rejected) == 3
    before = out.read_bytes()
    again = extract(folder, out, CONFIG)
    assert again.computed == 0
    assert len(again.rejected) == 3
    assert out.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"backbone": "densenet169"}, "backbone"),
        ({"views": 2}, "views"),
        ({"normalize": "unit"}, "normalize"),
        ({"precision": "bf16"}, "precision"),
        ({"dtype": "float16"}, "dtype"),
        ({"seed": 5}, "seed"),
    ],
)
def test_other_settings_are_named_and_need_overwrite(tmp_path, smears, change, named):
    out = tmp_path / "a.h5"
    small = SMALL | {"views": 1, "limit": 8}
    extract(smears, out, ExtractConfig(**small))
    before = out.read_bytes()
    with pytest.raises(CacheError, match=named):
        extract(smears, out, ExtractConfig(**small | change if named != "dtype" else small | {"dtype": "float32"}))
    assert out.read_bytes() == before
    assert extract(smears, out, ExtractConfig(**small | change), overwrite=True).computed > 0


@pytest.mark.slow
def test_a_recipe_makes_the_views_it_has(tmp_path, smears):
    few = SMALL | {"limit": 8}
    out = tmp_path / "a.h5"

    def planned(**more):
        done = extract(smears, out, ExtractConfig(**few, **more), dry_run=True)
        return done.attributes["recipe"], done.views

    assert planned() == ("plain", 1)
    assert planned(views=1) == ("plain", 1)
    assert planned(views=2) == ("report", 2)
    assert planned(recipe="plain") == ("plain", 1)
    assert planned(recipe="grey, blur") == ("grey,blur", 3)
    assert planned(recipe="fields", views=3) == (RECIPE_SETS["fields"], 3)
    with pytest.raises(ConfigError, match="with views=1, which is the plain image alone"):
        planned(recipe="grey", views=1)
    assert extract(smears, out, ExtractConfig(**few, recipe="grey")).views == 2
    assert read_cache(out).view == ("plain", "grey-1")


@pytest.mark.slow
def test_views_do_not_depend_on_batches(tmp_path, few_smears):
    settings = SMALL | {"views": 3, "dtype": "float32"}
    extract(few_smears, tmp_path / "a.h5", ExtractConfig(**settings, batch_size=4))
    extract(few_smears, tmp_path / "b.h5", ExtractConfig(**settings, batch_size=16))
    a, b = read_cache(tmp_path / "a.h5"), read_cache(tmp_path / "b.h5")
    assert a.attributes["fingerprint"] == b.attributes["fingerprint"]
    assert np.allclose(a.embeddings, b.embeddings, rtol=1e-3, atol=1e-4)
    assert not np.allclose(a.embeddings[:, 0], a.embeddings[:, 1], rtol=1e-2)


def test_one_writer_at_a_time(tmp_path, smears):
    out = tmp_path / "a.h5"
    with lock_cache(out), pytest.raises(CacheBusyError, match="another process"):
        extract(smears, out, CONFIG)


def test_dry_run_writes_nothing(tmp_path, smears):
    done = extract(smears, tmp_path / "a.h5", CONFIG, dry_run=True)
    assert done.computed == done.images
    assert list(tmp_path.iterdir()) == []


def test_wrong_input_is_told_clearly(tmp_path, smears):
    with pytest.raises(DataError):
        extract(tmp_path / "nowhere", tmp_path / "a.h5", CONFIG)
    with pytest.raises(CacheError, match="not a cache"):
        (tmp_path / "b.h5").write_text("no HDF5")
        extract(smears, tmp_path / "b.h5", CONFIG)
    with pytest.raises(CacheError, match="folder"):
        extract(smears, tmp_path, CONFIG)
    with pytest.raises(CacheError, match="cannot be written"):
        extract(smears, tmp_path / ("x" * 300), CONFIG)
    with pytest.raises(ConfigError, match="the normalisation 'nan"):
        extract(smears, tmp_path / "c.h5", ExtractConfig(views=1, normalize="nan,1,1/1,1,1"))
    with pytest.raises(ConfigError, match="densenet121"):
        extract(smears, tmp_path / "c.h5", ExtractConfig(backbone="densenet11"))
    with pytest.raises(ConfigError, match="report"):
        extract(smears, tmp_path / "c.h5", ExtractConfig(recipe="rapport"))


@pytest.mark.slow
def test_limit_never_drops_rows_of_a_larger_cache(tmp_path, few_smears):
    out = tmp_path / "a.h5"
    extract(few_smears, out, CONFIG)
    with pytest.raises(CacheError, match="the limit of 8 would drop"):
        extract(few_smears, out, ExtractConfig(**CONFIG.to_dict() | {"limit": 8}))


def committed(path) -> int:
    """Rows that are done, in a file that another process may be writing; read at once, since it is asked often."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            return int(file["committed"][()].sum())
    except (OSError, KeyError, RuntimeError):
        return 0


@pytest.mark.slow
def test_killed_ten_times_and_resumed_gives_the_same_bytes(tmp_path, smears):
    whole, killed = tmp_path / "whole.h5", tmp_path / "killed.h5"
    once = {"BALL_CHECKS": "", "XDG_CACHE_HOME": str(tmp_path / "checks")}  # the check of the precision is remembered
    command = ["extract", smears, "--backbone", TINY, "--weights", "random", "--precision", "fp32"]
    command += ["--views", "9", "--batch-size", "1", "--input-px", "224", "--quiet", "--out"]
    there = {"env": once, "before": TINY_DENSENET}
    assert ball(*command, whole, **there).returncode == 0
    rng = random.Random(0)
    kills = 0
    for _ in range(10):
        before = committed(killed)
        process = start(*command, killed, **there)
        # Let it get a little further than the last one, then kill it at a moment of chance.
        while process.is_alive() and committed(killed) <= before:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.02))
        kills += process.is_alive()
        process.kill()
        process.join()
    partial = committed(killed)
    assert ball(*command, killed, **there).returncode == 0
    a, b = read_cache(whole), read_cache(killed)
    assert kills >= 5
    assert 0 < partial <= len(a.path)
    assert b.complete
    assert a.path.tolist() == b.path.tolist()
    assert a.embeddings.tobytes() == b.embeddings.tobytes()
    assert all(a.shortcuts[name].tobytes() == b.shortcuts[name].tobytes() for name in a.shortcuts)


@pytest.mark.slow
@pytest.mark.real_data
def test_real_images_agree_with_torchvision(tmp_path, real_images, real_weights):
    weights = real_weights / "densenet201-standin.pth"
    config = ExtractConfig(weights=str(weights), views=1, precision="fp32", dtype="float32", limit=4)
    extract(real_images, tmp_path / "a.h5", config)
    cache = read_cache(tmp_path / "a.h5")
    module = torchvision.models.densenet201(weights=None)
    module.load_state_dict({k: v.float() for k, v in torch.load(weights).items()}, strict=False)
    module.eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for row, path in enumerate(cache.path):
        with Image.open(real_images / path) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB"))).float() / 255
        with torch.no_grad():
            batch = ((pixels - mean) / std).permute(2, 0, 1)[None]
            expected = torch.relu(module.features(batch)).mean((2, 3))[0].numpy()
        assert np.linalg.norm(cache.embeddings[row, 0] - expected) / np.linalg.norm(expected) < 1e-4


@pytest.mark.slow
def test_a_wrong_pass_is_left_for_torchvisions_and_a_resumed_run_goes_on_with_it(tmp_path, folder, monkeypatch):
    config = ExtractConfig(**SMALL, recipe="robust")
    right = tmp_path / "right.h5"
    last = sorted(folder.glob("*/*"))[-1]
    extract(folder, right, config)
    whole = Engine._maps

    def wrong(self, images, blocks):
        return {block: values.flip(-1) for block, values in whole(self, images, blocks).items()}

    monkeypatch.setattr(Engine, "_maps", wrong)
    said: list[str] = []
    content, out = last.read_bytes(), tmp_path / "wrong.h5"
    last.unlink()
    extract(folder, out, config, log=said.append)
    assert any("The fast pass is wrong here" in line for line in said)
    last.write_bytes(content)
    assert extract(folder, out, config).computed == 1
    got, expected = read_cache(out).embeddings.astype(float), read_cache(right).embeddings.astype(float)
    assert np.allclose(got, expected, rtol=1e-2, atol=1e-3 * np.abs(expected).max())


@pytest.mark.slow
def test_a_run_is_not_resumed_with_a_pass_that_strays(tmp_path, folder, monkeypatch):
    last = sorted(folder.glob("*/*"))[-1]
    content, out = last.read_bytes(), tmp_path / "a.h5"
    last.unlink()
    extract(folder, out, CONFIG)
    last.write_bytes(content)
    before, whole = out.read_bytes(), Engine._maps
    monkeypatch.setattr(Engine, "_maps", lambda *own: {key: one.flip(-1) for key, one in whole(*own).items()})
    with pytest.raises(CacheError, match="strays from float32 further than when the cache was begun"):
        extract(folder, out, CONFIG)
    assert out.read_bytes() == before
    monkeypatch.setattr(Engine, "_maps", whole)
    assert extract(folder, out, CONFIG).computed == 1


def deviating(smears, out, monkeypatch, precision):
    """A run whose bfloat16 strays beyond the bound, and what it said."""
    monkeypatch.setattr("ball_features.extraction.engine.choose.best_precision", lambda device: "bf16")
    monkeypatch.setattr("ball_features.extraction.engine.choose.COSINE_BOUND", 0.9999999)
    said: list[str] = []
    config = ExtractConfig(**SMALL | {"precision": precision}, views=1, limit=8)
    extract(smears, out, config, log=said.append)
    return read_cache(out), " ".join(said)


@pytest.mark.slow
def test_a_precision_that_strays_falls_back_to_float32(smears, tmp_path, monkeypatch):
    cache, said = deviating(smears, tmp_path / "c.h5", monkeypatch, "auto")
    assert "bf16 strays from float32 on these images" in said
    assert cache.attributes["precision"] == "fp32"
    assert cache.attributes["deviation_cosine"] > 0.9999999


@pytest.mark.slow
def test_a_precision_that_was_asked_for_is_kept_and_said_to_stray(smears, tmp_path, monkeypatch):
    cache, said = deviating(smears, tmp_path / "c.h5", monkeypatch, "bf16")
    assert "bf16, as asked for, strays from float32" in said
    assert cache.attributes["precision"] == "bf16"
    assert cache.attributes["deviation_cosine"] < 0.9999999


@pytest.mark.slow
def test_a_cache_in_a_saved_model_is_read_and_never_written(tmp_path, folder):
    model = tmp_path / "model"
    model.mkdir()
    extract(folder, tmp_path / "a.h5", CONFIG)
    (tmp_path / "a.h5").rename(model / "a.h5")
    (model / "bundle.json").write_text("{}")
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    done = extract(folder, model / "a.h5", CONFIG)
    assert (done.computed, done.reused) == (0, done.images)
    for name, dry_run in (("a.h5", False), ("a.h5", True), ("new.h5", False)):
        Image.new("RGB", (64, 64), "red").save(next(path for path in folder.iterdir() if path.is_dir()) / "more.png")
        with pytest.raises(
            DataError, match=r"saved model.*(Move it elsewhere, or g|G)ive another output file"
        ) as caught:
            extract(folder, model / name, CONFIG, dry_run=dry_run)
        assert ("1 images to compute" in str(caught.value)) == (name == "a.h5")
    with pytest.raises(DataError, match="holds a saved model"):
        extract(folder, model / "a.h5", CONFIG, overwrite=True)
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
