"""Bundles and predictions: what was fitted is what predicts, and nothing else is loaded."""

import csv
import json
import os
import re
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import ball_features
from ball_features.bundles.bundle import read_bundle, saved_notes
from ball_features.bundles.facts import BundleFacts
from ball_features.bundles.prediction import Prediction
from ball_features.bundles.predictor import Predictor
from ball_features.cache import read_cache
from ball_features.cli import app
from ball_features.config import FitConfig
from ball_features.dataset.manifest import scan
from ball_features.deployment.alarm import contradicted, reasons_to_look
from ball_features.deployment.answers import Predictions
from ball_features.deployment.inputs import find_images
from ball_features.errors import ConfigError, DataError, WeightsError
from ball_features.extraction.engine.densenet import Engine
from ball_features.models.registry import MODELS as REGISTRY
from ball_features.reporting.card import write_card
from ball_features.runs.fit import fit
from tests.commands import ball

MODELS = tuple(name for name, own in REGISTRY.items() if own.kind != "shortcut")


def listed(arguments):
    """Files and rejected files of the arguments of a prediction."""
    found = find_images(arguments)
    return found.files, found.rejected


@pytest.fixture(scope="module")
def run(small_cache, tmp_path_factory):
    config = FitConfig(models=(*MODELS, "colour"), repeats=1, test_size=0.3, val_size=0.3)
    return fit(small_cache, config, out_root=tmp_path_factory.mktemp("runs"), save="all")


@pytest.mark.parametrize("pattern", ["**/*.png", "**", "**/**/*.png", "*/**/*.png", "**/a/**/*.png", "**/*"])
def test_links_in_circles_end(tmp_path, monkeypatch, pattern):
    (tmp_path / "a" / "b").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "b" / "1.png")
    (tmp_path / "a" / "b" / ".2.png").touch()
    wanted = {"a/b/1.png"}
    for place in (tmp_path, tmp_path / "a", tmp_path / "a" / "b"):
        for name in "xyz":
            (place / name).symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    for start in ("", f"{tmp_path}/"):
        found = {file.resolve().relative_to(tmp_path).as_posix() for file in find_images([start + pattern]).files}
        assert found == wanted
    if pattern in ("**/*.png", "**", "**/**/*.png", "**/a/**/*.png"):
        assert [file.as_posix() for file in find_images([pattern]).files] == ["a/b/1.png"]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_bundle_predicts_what_the_run_predicted(run, small_cache, model):
    bundle = read_bundle(run.folder / "models" / model)
    cache = read_cache(small_cache)
    with (run.folder / "predictions.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == model]
    place = {path: row for row, path in enumerate(cache.path.tolist())}
    views = bundle.facts.preprocessing.plan.indices
    X = cache.embeddings[[place[row["path"]] for row in rows]][:, views]
    expected = np.array([[float(row[f"p_{name}"]) for name in bundle.classes] for row in rows])
    tempered = np.clip(expected, 1e-12, 1) ** (1 / bundle.facts.temperature)
    tempered /= tempered.sum(1, keepdims=True)
    # A support vector machine is fitted again, on columns; its solver ends within a tolerance, by processor.
    assert np.allclose(bundle.probability(X), tempered, atol=1e-2 if "svm" in model else 1e-5)


@pytest.mark.slow
def test_bundles_compare_and_hash(run):
    """By identity, as their arrays cannot be compared."""
    one, other = (read_bundle(run.folder / "models" / "logistic") for _ in range(2))
    assert one != other
    assert {one: 1}[one] == 1


@pytest.mark.slow
def test_new_images(run, small_cache, smears, tmp_path):
    files, missing = listed([str(smears / "Pro"), "nowhere.png", str(smears / "Benign")])
    assert [item.path for item in missing] == ["nowhere.png"]
    (tmp_path / "bad.png").write_bytes(b"no image")
    predictor = Predictor(read_bundle(run.folder / "models" / "logistic"))
    predictions, rejected = predictor([*files, tmp_path / "bad.png"])
    assert [item.path for item in predictions] == [str(file) for file in files]
    assert len(rejected) == 1
    cache = read_cache(small_cache)
    place = {path: row for row, path in enumerate(cache.path.tolist())}
    rows = [place[file.relative_to(smears).as_posix()] for file in files]
    expected = predictor.bundle.probability(cache.embeddings[rows][:, :1])
    got = np.array([list(item.probability.values()) for item in predictions])
    assert np.allclose(got, expected, atol=0.02)
    for item in predictions:
        assert item.predicted == item.set[0] == max(item.probability, key=lambda name: item.probability[name])
        assert sum(item.probability.values()) == pytest.approx(1)
    with pytest.raises(ConfigError, match="coverage"):
        predictor(files[:1], coverage=1.5)


@pytest.mark.slow
def test_a_bundle_computes_by_the_pass_of_its_cache(small_cache, smears, tmp_path, monkeypatch):
    """Where the fast pass is wrong, `extract` left it for torchvision's own; bundles of before do not say so."""
    cache = tmp_path / "slow.h5"
    shutil.copy(small_cache, cache)
    with h5py.File(cache, "r+") as file:
        file.attrs["pass"] = "torchvision"
        del file["checksums"]
    run = fit(cache, FitConfig(models=("logistic",), repeats=1), out_root=tmp_path, save="best")
    whole = Engine._maps
    monkeypatch.setattr(Engine, "_maps", lambda *own: {key: one.roll(1, -1) for key, one in whole(*own).items()})
    stored = read_cache(cache)
    files, expected = [smears / path for path in stored.path[:2]], stored.embeddings[:2, :1].astype(np.float32)
    X = Predictor(read_bundle(run.bundles[0]), device="cpu").embed_all(files).X
    assert np.allclose(X, expected, rtol=1e-2, atol=1e-3 * np.abs(expected).max())
    facts = json.loads((run.bundles[0] / "bundle.json").read_text())
    assert facts.pop("forward_pass") == "torchvision"
    before = read_bundle(run.bundles[0])
    before = replace(before, facts=BundleFacts.from_json(facts))
    checked = Predictor(before, device="cpu")  # which looks at the fast pass on this machine itself
    assert np.allclose(checked.embed_all(files).X, expected, rtol=1e-2, atol=1e-3 * np.abs(expected).max())
    assert checked.caveat


@pytest.mark.slow
def test_colours_of_files_are_those_of_the_cache(run, small_cache, smears):
    """The flag sees the same whether images come from files, from a cache, or one by one."""
    folder, stored = run.folder / "models" / "logistic", read_cache(small_cache)
    bundle = read_bundle(folder)
    assert bundle.novelty is not None and bundle.novelty.measures.colours is not None
    predictor = Predictor(bundle, device="cpu")
    found = predictor.embed_all([smears / path for path in stored.path[:3]])
    assert np.array_equal(found.histogram, stored.shortcuts["histogram"][:3])
    odd = np.roll(found.histogram.reshape(3, 3, 32), 7, axis=2).reshape(3, 96)  # another stain
    probability = bundle.probability(found.X)
    assert bundle.unusual(found.X, probability, odd).all()
    flags = [item.unusual for item in predictor.describe(found.paths, found.X, 0.9, found.histogram)]
    assert flags == bundle.unusual(found.X, probability, found.histogram).tolist()
    assert bundle.unusual_share >= bundle.novelty.scale.beyond_share(0.01)


@pytest.mark.parametrize("name", ["colour_mean", "colour_variance", "scale_largest"])
def test_colours_that_do_not_fit_are_damage(run, emptied, name):
    with pytest.raises(DataError, match="damaged"):
        read_bundle(emptied(run.folder / "models" / "logistic", name))


@pytest.mark.slow
def test_files_say_what_predicted_and_what_was_rejected(run, smears, tmp_path):
    """A CSV of rows with the rest beside it; JSON and page hold both."""
    folder = run.folder / "models" / "logistic"
    (tmp_path / "bad.png").write_bytes(b"no image")
    found = ball_features.predict(folder, [smears / "Pro", tmp_path / "bad.png"], coverage=0.8)
    assert len(found.predictions) == 12
    assert [item.path for item in found.rejected] == [str(tmp_path / "bad.png")]
    bundle = read_bundle(folder)
    assert found.write(tmp_path / "deep" / "p.csv") == [tmp_path / "deep" / "p.csv", tmp_path / "deep" / "p.csv.json"]
    with (tmp_path / "deep" / "p.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    p = [f"p_{name}" for name in bundle.classes]
    assert list(table[0]) == ["path", "predicted", *p, "set", "distance", "unusual"]
    assert {row["unusual"] for row in table} <= {"true", "false"}
    beside = json.loads((tmp_path / "deep" / "p.csv.json").read_text())
    assert beside["coverage"] == 0.8
    assert beside["bundle"] == str(folder)
    assert beside["unusual_from"] == bundle.unusual_from
    assert beside["notes"] == bundle.notes(0.8)
    assert [item["path"] for item in beside["rejected"]] == [str(tmp_path / "bad.png")]
    found.write(tmp_path / "p.json")
    whole = json.loads((tmp_path / "p.json").read_text())
    assert {key: value for key, value in whole.items() if key != "predictions"} == beside
    assert [item["path"] for item in whole["predictions"]] == [row["path"] for row in table]
    found.write(tmp_path / "p.html")
    page = (tmp_path / "p.html").read_text()
    assert "http:" not in page and "https:" not in page and "url(" not in page  # nothing is fetched
    assert "80 % coverage" in page
    assert "bad.png: " in page
    with pytest.raises(DataError, match="csv"):
        found.write(tmp_path / "p.xlsx")
    assert isinstance(found, Predictions)


@pytest.mark.slow
def test_no_image_that_can_be_predicted_is_an_error(run, tmp_path):
    """Nothing is written, and the exit code is 2."""
    folder = run.folder / "models" / "logistic"
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"No file of 1[^/]+/.*bad\.png"):
        ball_features.predict(folder, tmp_path)
    with pytest.raises(DataError, match="Found no image"):
        ball_features.predict(folder, "nowhere")
    done = ball("predict", folder, tmp_path, "--out", "p.csv", cwd=tmp_path)
    assert (done.returncode, "bad.png" in done.stderr) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.png"]


def test_folders_are_searched_as_extract_does(smears, tmp_path):
    """Hidden files are left out, linked folders followed once, folders that a pattern matches searched."""
    image = next((smears / "Pro").iterdir())
    root, other = tmp_path / "root", tmp_path / "other"
    for name in ("a/2.jpg", "a/10.jpg", "a/._2.jpg", "a/.cache/b.jpg", "a/notes.txt", "loose.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, root / name)
    other.mkdir()
    shutil.copy(image, other / "linked.jpg")
    (root / "b").symlink_to(other)
    (root / "a" / "back").symlink_to(root)
    (root / "empty").mkdir()
    files, rejected = listed([str(root)])
    names = [file.relative_to(root).as_posix() for file in files]
    assert names == ["a/2.jpg", "a/10.jpg", "b/linked.jpg", "loose.jpg"]
    assert not rejected
    assert [name for name in names if "/" in name] == list(scan(root).path)
    files, _ = listed([f"{root}/*"])
    assert {file.relative_to(root).as_posix() for file in files} >= set(names)
    files, rejected = listed([str(root / "empty"), str(root / "nowhere-*")])
    assert not files
    assert [item.reason for item in rejected] == ["holds no image", "is not there"]


def test_a_name_that_is_not_utf8_is_rejected(smears, tmp_path):
    try:
        shutil.copy(next((smears / "Pro").iterdir()), os.fsencode(tmp_path) + b"/b\xff.jpg")
    except OSError:
        pytest.skip("the file system keeps names UTF-8")
    files, rejected = listed([str(tmp_path)])
    assert not files
    assert "not UTF-8" in rejected[0].reason
    rejected[0].path.encode()


@pytest.mark.slow
def test_python_saves_as_the_command_does(small_cache, tmp_path):
    config = FitConfig(models=("logistic", "colour"), repeats=1)
    run = ball_features.fit(small_cache, config, out_root=tmp_path, save="best")
    assert run.bundles == [run.folder / "models" / "logistic"]
    assert ball_features.read_run(run.folder).bundles == run.bundles
    bundle = ball_features.read_bundle(run.bundles[0])
    assert bundle.facts.train_images < len(read_cache(small_cache).path)
    (note, *_) = saved_notes(run.bundles[0])
    assert f"first split's model, fitted on {bundle.facts.train_images} of 48 images" in note
    assert not ball_features.fit(small_cache, config, out_root=tmp_path).bundles


@pytest.mark.slow
def test_the_command_says_what_it_saved(small_cache, tmp_path, monkeypatch):
    """Under leave-group-out also whose images the bundle has not seen."""
    monkeypatch.setattr("ball_features.dataset.splits.MIN_CLASS_TRAIN", 2)
    cache = read_cache(small_cache)
    series = [f"s{number % 12 // 4}" for number in range(len(cache.path))]
    lines = [f"{path},{name},{name}" for path, name in zip(cache.path.tolist(), series, strict=True)]
    (tmp_path / "groups.csv").write_text("\n".join(["path,group,series", *lines]) + "\n")
    options = ["--protocol", "leave-group-out", "--groups", str(tmp_path / "groups.csv"), "--models", "logistic"]
    options += ["--repeats", "1", "--save", "best", "--name", "own", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, ["fit", str(small_cache), *options])
    assert result.exit_code == 0, result.output
    assert f"Bundle: {tmp_path / 'own' / 'models' / 'logistic'}" in result.stdout
    facts = read_bundle(tmp_path / "own" / "models" / "logistic").facts
    assert facts.left_out
    assert f"nothing of {facts.left_out}, the first group left out" in result.output
    folder = tmp_path / "own" / "models" / "logistic"
    card = write_card(read_bundle(folder), folder, tmp_path / "card.md").read_text(encoding="utf-8")
    assert f"It has seen nothing of {facts.left_out}." in card


@pytest.mark.slow
def test_other_weights_are_refused(run, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"others")
    with pytest.raises(WeightsError, match="not the weights"):
        Predictor(read_bundle(run.folder / "models" / "logistic"), weights=str(tmp_path / "weights.pth"))


@pytest.mark.slow
def test_strange_types_are_not_loaded(run, tmp_path):
    """A bundle whose model file holds another kind of object is refused before anything is built."""
    from pathlib import PurePosixPath

    from skops import io

    folder = shutil.copytree(run.folder / "models" / "logistic", tmp_path / "bundle")
    io.dump({"a": PurePosixPath("x")}, folder / "model.skops")
    with pytest.raises(DataError, match="no need of"):
        read_bundle(folder)
    with pytest.raises(DataError, match="not a bundle"):
        read_bundle(tmp_path)


def damage(folder, name):
    file = folder / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "file"),
    [
        ("mlp", "head.safetensors"),
        ("mlp", "reference.safetensors"),
        ("logistic", "model.skops"),
        ("xgboost", "xgboost.json"),
    ],
)
def test_a_damaged_bundle_is_one_clear_error(run, tmp_path, model, file):
    folder = shutil.copytree(run.folder / "models" / model, tmp_path / "bundle")
    damage(folder, file)
    with pytest.raises(DataError, match=r"damaged bundle.*Copy it again"):
        read_bundle(folder)
    (folder / file).unlink()
    with pytest.raises(DataError, match="damaged bundle"):
        read_bundle(folder)


@pytest.mark.slow
def test_a_bundle_that_lacks_facts_or_rows_is_damaged(run, tmp_path):
    folder = shutil.copytree(run.folder / "models" / "logistic", tmp_path / "bundle")
    facts = json.loads((folder / "bundle.json").read_text())
    for own in (
        facts | {"train_path": facts["train_path"][:3]},
        *(
            {k: v for k, v in facts.items() if k != key}
            for key in ("classes", "weights_sha256", "views", "temperature")
        ),
        facts | {"classes": "abcd"},
        facts | {"temperature": "1"},
        facts | {"views": None},
        facts | {"test": {"images": 3}},
        [],
    ):
        (folder / "bundle.json").write_text(json.dumps(own))
        with pytest.raises(DataError, match="damaged bundle"):
            read_bundle(folder)
    damage(folder, "bundle.json")
    with pytest.raises(DataError, match="not a bundle"):
        read_bundle(folder)


@pytest.mark.slow
def test_files_of_a_run_have_the_umask_s_mode(run):
    """safetensors' own `save_file` lets only the owner read what it writes."""
    umask = os.umask(0)
    os.umask(umask)
    files = [path for path in (run.folder / "models").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"mlp.safetensors", "head.safetensors", "reference.safetensors"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~umask}


@pytest.mark.slow
def test_few_validation_images_do_not_turn_the_warning_off(run, tmp_path):
    """14 calibration images: the largest distance among them is the threshold, and noise lies beyond it."""
    bundle = read_bundle(run.folder / "models" / "logistic")
    assert bundle.unusual_from == bundle.distances.max()
    assert bundle.unusual_share == pytest.approx(1 / (len(bundle.distances) + 1))
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    predictions, _ = Predictor(bundle)(sorted(tmp_path.iterdir()))
    assert all(item.unusual for item in predictions)
    (note,) = (note for note in bundle.notes(0.95) if "unusual" in note)
    assert f"{len(bundle.distances)} calibration images" in note
    assert f"one image in {len(bundle.distances) + 1}" in note
    assert note in saved_notes(run.folder / "models" / "logistic")


@pytest.mark.slow
def test_what_it_does_on_its_test_images_is_in_the_bundle(run, small_cache):
    """Recomputed from the bundle as it is read back and the split as it is written down."""
    bundle = read_bundle(run.folder / "models" / "logistic")
    cache = read_cache(small_cache)
    with (run.folder / "splits.csv").open(newline="") as file:
        names = [row["path"] for row in csv.DictReader(file) if row["split"] == "test"]
    rows = np.flatnonzero(np.isin(cache.path, names))
    truth = np.array([bundle.classes.index(label) for label in cache.label[rows]])
    found = bundle.facts.test
    assert found is not None
    probability = bundle.probability(cache.embeddings[rows][:, :1])
    assert found.images == len(rows)
    assert found.accuracy == pytest.approx((probability.argmax(1) == truth).mean())
    assert found.log_loss == pytest.approx(-np.log(probability[np.arange(len(truth)), truth]).mean(), abs=1e-6)
    flags = bundle.unusual(cache.embeddings[rows][:, :1], probability, cache.shortcuts["histogram"][rows])
    assert found.unusual == pytest.approx(flags.mean())
    for own in found.sets:
        inside = bundle.sets(probability, own.coverage)
        assert own.covered == pytest.approx(inside[np.arange(len(truth)), truth].mean())
        assert own.size == pytest.approx(inside.sum(1).mean())
        assert own.single == pytest.approx((inside.sum(1) == 1).mean())


def test_saving_a_shortcut_is_refused(small_cache, tmp_path):
    with pytest.raises(ConfigError, match="Shortcuts see no network"):
        fit(small_cache, FitConfig(models=("colour", "logistic")), out_root=tmp_path, save="colour")


@pytest.mark.slow
def test_decoding_ahead_changes_nothing(run, smears, tmp_path, monkeypatch):
    """As on a GPU: images come from a pool, in the same order, with the same numbers."""
    import types

    files = [*sorted((smears / "Pro").iterdir())[:5], tmp_path / "bad.png", *sorted((smears / "Pre").iterdir())[:5]]
    (tmp_path / "bad.png").write_bytes(b"no image")
    predictor = Predictor(read_bundle(run.folder / "models" / "logistic"), device="cpu")
    expected = predictor(files)
    embed = predictor.embed

    def embed_on_cpu(images, digests):
        device, predictor.device = predictor.device, cpu
        try:
            return embed(images, digests)
        finally:
            predictor.device = device

    monkeypatch.setattr(predictor, "embed", embed_on_cpu)
    cpu = predictor.device
    monkeypatch.setattr(predictor, "device", types.SimpleNamespace(type="cuda"))
    predictions, rejected = predictor(files)
    assert [item.path for item in predictions] == [item.path for item in expected[0]]
    assert [item.path for item in rejected] == [item.path for item in expected[1]]
    for one, other in zip(predictions, expected[0], strict=True):
        assert one.probability == pytest.approx(other.probability, abs=0.02)


def answer(path, predicted="Pro", share=0.95, others=(), unusual=False, nearest=("Pro/1.jpg",)):
    probability = (
        {"Early": round(1 - share, 3), "Pro": share} if predicted == "Pro" else {"Early": share, "Pro": 1 - share}
    )
    return Prediction(path, predicted, probability, (predicted, *others), 0.1, unusual, nearest)


@pytest.mark.parametrize(
    ("nearest", "classes", "expected"),
    [
        (("Early/1.jpg",), (), True),
        (("Pro/1.jpg", "Early/1.jpg"), (), False),
        (("scan-1/1.jpg",), (), False),  # folders that are no classes say nothing
        (("scan-1/1.jpg",), ("Early",), True),  # a sheet named the classes
        (("Early/1.jpg",), ("Pro",), False),  # the sheet wins over the folder
        ((), (), False),
    ],
)
def test_neighbours_contradict(nearest, classes, expected):
    item = replace(answer("a.jpg", nearest=nearest), nearest_class=classes)
    assert contradicted(item, ("Early", "Pro")) is expected
    assert item.to_dict()["nearest_class"] == list(classes)


def test_the_page_of_predictions_shows_first_what_needs_a_look(tmp_path):
    items = [
        answer("plain.jpg"),
        answer("<odd>.jpg", unusual=True),
        answer("low.jpg", share=0.6),
        answer("several.jpg", share=0.8, others=("Early",)),
        answer("against.jpg", nearest=("Early/1.jpg", "Early/2.jpg")),
        answer("no-classes.jpg", nearest=("scan-1/1.jpg",)),
    ]
    about = {"model": "mlp", "backbone": "densenet121", "bundle": "b", "coverage": 0.9, "unusual_from": 0.2}
    found = Predictions(items, [], ("Early", "Pro"), about | {"unusual_share": 0.01}, ["A note."])
    assert [bool(reasons_to_look(item, found.classes)) for item in items] == [False, True, True, True, True, False]
    page = found.write(tmp_path / "p.html")[0].read_text(encoding="utf-8")
    look = page.split("<h2>Images that need a look: 4 of 6</h2>")[1].split("<h2>")[0]
    names = re.findall(r"<td class=\"text\">([^<]*\.jpg)</td>", look.split("<details>")[0])
    assert names == ["&lt;odd&gt;.jpg", "low.jpg", "several.jpg", "against.jpg"]
    assert "none of its nearest training images is of this class" in look
    assert "could be Pro or Early" in look
    assert "Verdict" in page.split("<h2>Summary</h2>")[0]
    assert "1 of 6 images is unlike those that the model was made from" in page
    assert "plain.jpg" in page.split("<summary>All 6 predictions</summary>")[1]


@pytest.mark.slow
def test_patients_get_an_answer(run, smears, tmp_path):
    """The mean of log-probabilities over a patient's images, with their number, in every form of output."""
    folder, files = run.folder / "models" / "logistic", sorted((smears / "Pro").iterdir())[:5]
    sheet = {"image": [file.name for file in files[:4]], "case": ["P1", "P1", "P2", "P1"]}
    found = ball_features.predict(folder, files, sheet=sheet)
    assert found.patient == ("P1", "P1", "P2", "P1", "")
    assert any("has no row" in remark for remark in found.remarks)
    assert [(item.patient, item.images) for item in found.patients] == [("P1", 3), ("P2", 1)]
    probability = np.array([list(item.probability.values()) for item in found.predictions])
    for item, rows in zip(found.patients, ([0, 1, 3], [2]), strict=True):
        expected = np.exp(np.log(probability[rows]).mean(0))
        assert list(item.probability.values()) == pytest.approx(expected / expected.sum())
        assert item.predicted == found.classes[expected.argmax()]
        assert item.unusual == sum(found.predictions[row].unusual for row in rows)
        own = [found.predictions[row].predicted for row in rows]
        assert item.agreement == pytest.approx(own.count(item.predicted) / len(own))
    written = found.write(tmp_path / "p.csv")
    assert [path.name for path in written] == ["p.csv", "p.csv.json", "p.patients.csv"]
    with written[2].open(newline="") as file:
        assert [(row["patient"], row["images"]) for row in csv.DictReader(file)] == [("P1", "3"), ("P2", "1")]
    with written[0].open(newline="") as file:
        assert [row["patient"] for row in csv.DictReader(file)] == ["P1", "P1", "P2", "P1", ""]
    assert json.loads(written[1].read_text())["patients"] == [item.to_dict() for item in found.patients]
    found.write(tmp_path / "p.html")
    assert "An answer for each patient" in (tmp_path / "p.html").read_text()
    with pytest.raises(DataError, match="names no patient"):
        ball_features.predict(folder, files, sheet={"image": [files[0].name], "stain": ["x"]})


@pytest.mark.slow
def test_the_terminal_says_what_to_make_of_it_and_what_was_passed_over(run, tmp_path):
    """Verdict and skipped files on standard error; standard output holds the answers alone."""
    images = tmp_path / "images"
    images.mkdir()
    for number, colour in enumerate(("white", "black", "red")):
        Image.new("RGB", (64, 64), colour).save(images / f"{number}.png")
    for name in ("a.txt", "b.txt", "c.docx"):
        (images / name).write_text("no image")
    (tmp_path / "s.csv").write_text("image,patient\n0.png,A\n1.png,A\n2.png,B\n")
    folder = run.folder / "models" / "logistic"
    command = ["predict", str(folder), str(images), "--sheet", str(tmp_path / "s.csv")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert re.search("Serious: [23] of 3 images are unlike those that the model was made from", done.stderr)
    assert "Next: ball evaluate" in done.stderr
    assert "Skipped 3 files that are no images: 2 .txt, 1 .docx." in done.stderr
    assert re.search(r"patient A  \w+ [01]\.\d+  2 images  [12] UNUSUAL", done.stdout)
    assert "Serious" not in done.stdout
    quiet = CliRunner().invoke(app, [*command, "--quiet"])
    assert quiet.stderr == ""
    values = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert values["verdict"][0]["code"] == "mostly-unusual"
    assert [item["patient"] for item in values["patients"]] == ["A", "B"]
