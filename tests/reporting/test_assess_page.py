"""The page of `ball assess`, from constructed results: verdict first, plain words, overlays, a map by every column."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from ball_features.audit.summary import AuditSummary, OverlaySummary
from ball_features.cache import read_cache
from ball_features.evaluation.rows import LadderRow, write_rows
from ball_features.reporting.assess_page import write_assess_report
from ball_features.reporting.markup import Thumbnails
from ball_features.reporting.verdict import findings_to_json, verdict
from tests.made import clouds, write_cache
from tests.reporting.test_verdict import FALL, LENIENT, Evidence

PER_CLASS = 10


def summary_of(overlays):
    classes = {name: PER_CLASS for name in ("Benign", "Early", "Pre", "Pro")}
    return AuditSummary(
        images=40, classes=classes, exact_duplicate_pairs=1, near_duplicate_pairs=2, shared_field_pairs=3,
        images_in_pairs=9, groups=30, largest_group=4, overlays=overlays, overlay_class_mutual_information_bits=0.5,
        encodings={"jpeg": classes}, series={"s": {"images": 40, "confidence": 0.5}},
        batches={"b": {"images": 40, "confidence": 0.5}}, shortcut_accuracy={"majority": 0.25}, label_conflicts=[],
        outliers={}, rejected={}, exact=[], pairs=[],
    )  # fmt: skip


BAR = {
    "red-bar": OverlaySummary(10, {"Early": 10}, (180, 200, 220, 215)),
    "none": OverlaySummary(30, {"Benign": 10, "Pre": 10, "Pro": 10}, None),
}
NONE = {"none": OverlaySummary(40, {"Benign": 10, "Early": 10, "Pre": 10, "Pro": 10}, None)}


@pytest.fixture
def made(tmp_path):
    """A ladder's folder, a cache with sites, and a groups file."""
    embeddings, label = clouds(PER_CLASS)
    sites = ["A" if row % 2 else "B" for row in range(len(label))]
    cache = read_cache(write_cache(tmp_path / "c.h5", embeddings, label, {"site": sites}))
    folder = tmp_path / "ladder"
    folder.mkdir()
    rows = [
        LadderRow(rung, model, kind, accuracy, accuracy - 0.1, accuracy + 0.05, None, None)
        for rung, drop in (("random", 0.0), ("series left out", 0.4))
        for model, kind, accuracy in (("mlp", "head", 0.95 - drop), ("colour", "shortcut", 0.6 - drop))
    ]
    write_rows(folder / "ladder.csv", rows)
    (folder / "run.json").write_text(json.dumps({"notes": ["A note."], "title": "Optimism ladder"}))
    findings = findings_to_json(verdict(Evidence((LENIENT, FALL))))
    (folder / "verdict.json").write_text(json.dumps(findings))
    lines = [f"{path},s{row % 3},bar{row % 2}" for row, path in enumerate(cache.path)]
    (tmp_path / "groups.csv").write_text("\n".join(["path,series,overlay", *lines]) + "\n")
    return tmp_path, folder, cache


def page_of(made, overlays):
    root, folder, cache = made
    audited = AuditSummary.from_dict(json.loads(json.dumps(summary_of(overlays).to_dict())))
    return write_assess_report(root / "a.html", folder, cache, root / "groups.csv", audited, "IMAGES").read_text(
        "utf-8"
    )


def test_the_answer_comes_first_and_the_words_are_explained(made):
    page = page_of(made, BAR)
    parts = [
        "What is a score on these images worth?</h1>",
        "40 images in 4 classes",
        "Expect about 55 %",
        "Serious.",
        "less and less like",
        "Words on this page",
        "Every model under every protocol",
        "red-bar",
        "Map of the",
    ]
    places = [page.index(part) for part in parts]
    assert places == sorted(places)
    for word in ("each series tested in turn", "sees the mean and the spread of three colours", "with random weights"):
        assert word in page
    assert "ball audit IMAGES --out groups.csv --page audit.html" in page
    assert "A note." in page


def test_the_map_takes_every_column_that_is_known(made):
    page = page_of(made, BAR)
    legend = page[page.index("Colour by") : page.index("</fieldset>")]
    for column in ("class", "series", "overlay", "site"):
        assert f">{column}<" in legend.replace("</label>", "<")
    assert page.count("<circle") == 40


def test_the_map_is_coloured_by_prediction_and_by_error(made):
    """By the best model with a network on the first and the last rung; untested images are told apart."""
    _, folder, cache = made
    assert "prediction" not in page_of(made, BAR)  # a ladder that keeps no predictions
    classes = ("Benign", "Early", "Pro")  # the first 20 images are of two
    lines = ["rung,model,repeat,fold,path,label,predicted,p_Benign,p_Early,p_Pro"]
    for row, (path, label) in enumerate(zip(cache.path[:20], cache.label, strict=False)):
        for rung, model, said in (
            ("random", "mlp", label),
            ("random", "colour", "Pro"),
            ("series left out", "mlp", "Pro" if row < 3 else label),
            ("series left out", "colour", "Pro"),
        ):
            lines.append(
                f"{rung},{model},0,0,{path},{label},{said}," + ",".join(str(int(said == own)) for own in classes)
            )
    (folder / "predictions.csv").write_text("\n".join(lines) + "\n")
    rows = [
        LadderRow("random", "mlp", "head", 1.0, 0.9, 1.0),
        LadderRow("random", "colour", "shortcut", 0.0, 0.0, 0.1),
        LadderRow("series left out", "mlp", "head", 0.85, 0.8, 0.9),
        LadderRow("series left out", "colour", "shortcut", 0.0, 0.0, 0.1),
    ]
    write_rows(folder / "ladder.csv", rows)
    page = page_of(made, BAR)
    legend = page[page.index("Colour by") : page.index("<circle")]
    ways = re.findall(r">([^<>]+)</label>", legend)
    assert ways[:5] == ["class", *(f"{way} ({rung})" for rung in ("random", "series left out")
                                   for way in ("prediction", "error"))]  # fmt: skip
    looks = np.array(
        [[int(look) for look in own.split()] for own in re.findall(r'<circle[^>]*data-v="([\d ]+)"', page)]
    )
    named = dict(zip(ways, looks.T, strict=True))
    assert (named["error (random)"] == 5).sum() == 0
    assert (named["error (series left out)"] == 5).sum() == 3
    assert (named["prediction (random)"] == named["class"]).sum() == 20  # a class keeps its colour
    assert legend.count("not tested") == 4 and legend.count("wrong at least once") == 1
    assert "those of mlp" in page and "predicted Pro (series left out)" in page


def test_without_overlays_no_empty_part_is_shown(made):
    page = page_of(made, NONE)
    assert "Burned-in scale bars" not in page
    assert "What the audit of the images found" in page


def test_a_summary_is_read_back_as_it_was_written():
    values = json.loads(json.dumps(summary_of(BAR).to_dict()))
    again = AuditSummary.from_dict(values)
    assert json.loads(json.dumps(again.to_dict())) == values
    assert again.overlays["red-bar"].classes == {"Early": 10}
    assert np.isclose(again.shortcut_accuracy["majority"], 0.25)
    with pytest.raises((KeyError, TypeError)):
        AuditSummary.from_dict({"overlays": {}})


@pytest.mark.parametrize("path", ["../secret.png", "a/../../secret.png", "/secret.png"])
def test_thumbnails_stay_in_their_folder(tmp_path, path):
    (tmp_path / "images").mkdir()
    for file in (tmp_path / "secret.png", tmp_path / "images" / "own.png"):
        Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(file)
    pictures = Thumbnails(tmp_path / "images")
    assert pictures.address(path.replace("/secret", f"{tmp_path}/secret") if path.startswith("/") else path) == ""
    assert pictures.address("own.png").startswith("data:image/jpeg")
