"""Which model `save="best"` saves: that of the strictest protocol that was run on the same cache."""

import json

import pytest

from ball_features import fit
from ball_features.config import FitConfig
from ball_features.evaluation.rows import LadderRow, write_rows
from ball_features.runs.strictest import choose_best
from tests.made import clouds, write_cache

SAME = {"images_sha256": "a", "cache_fingerprint": "b", "classes": ["x", "y"]}


def details(protocol, adapt="none", **other):
    return SAME | {"config": {"protocol": protocol, "adapt": adapt}, "created": "2026-01-01T00:00:00+00:00"} | other


def run(root, name, scores, own, rung=""):
    folder = root / name
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(own), encoding="utf-8")
    models = [{"model": model, "kind": "head", "accuracy": score} for model, score in scores.items()]
    if rung:
        rows = [LadderRow(rung, item["model"], "head", item["accuracy"], 0.0, 1.0) for item in models]
        write_rows(folder / "ladder.csv", rows)
    else:
        (folder / "metrics.json").write_text(json.dumps({"classes": ["x", "y"], "models": models}), encoding="utf-8")


def test_the_table_of_a_stricter_run_decides_and_a_note_says_so(tmp_path):
    run(tmp_path, "sites", {"mlp": 0.4, "robust": 0.7}, details("leave-site-out"))
    run(tmp_path, "blocks", {"mlp": 0.9, "robust": 0.1}, details("block-cv"))
    choice = choose_best(tmp_path, details("holdout"), ["mlp", "robust"])
    assert choice.model == "robust"
    assert "leave-site-out (sites)" in choice.note and "mlp" in choice.note
    assert choose_best(tmp_path, details("leave-site-out"), ["mlp", "robust"]).model == "mlp"


def test_the_last_rung_of_a_ladder_decides(tmp_path):
    rungs = [{"rung": "random", "protocol": "holdout"}, {"rung": "series left out", "protocol": "leave-group-out"}]
    own = details("holdout", rungs=rungs)
    run(tmp_path, "ladder", {"mlp": 0.4, "robust": 0.7}, own, "series left out")
    assert choose_best(tmp_path, details("holdout"), ["mlp", "robust"]).model == "robust"


@pytest.mark.parametrize(
    "other",
    [
        {"images_sha256": "c"},
        {"cache_fingerprint": "c"},
        {"classes": ["x", "z"]},
        {"config": {"protocol": "leave-site-out", "adapt": "auto"}},
        {"config": {"protocol": "unheard-of", "adapt": "none"}},
    ],
)
def test_runs_of_other_images_settings_or_adaptation_do_not_count(tmp_path, other):
    run(tmp_path, "sites", {"mlp": 0.4, "robust": 0.7}, details("leave-site-out", **other))
    choice = choose_best(tmp_path, details("holdout"), ["mlp", "robust"])
    assert choice.model == "mlp" and not choice.note


def test_a_damaged_run_and_one_without_the_models_do_not_count(tmp_path):
    run(tmp_path, "one", {"robust": 0.7}, details("leave-site-out"))
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "run.json").write_text("{", encoding="utf-8")
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "run.json").write_text("[]", encoding="utf-8")
    assert choose_best(tmp_path, details("holdout"), ["mlp", "robust"]).model == "mlp"


@pytest.mark.slow
def test_a_run_saves_the_model_that_was_best_on_sites_left_out(tmp_path):
    X, label = clouds(78)
    sites = [f"s{number % 3}" for number in range(len(label))]
    cache = write_cache(tmp_path / "c.h5", X, label, {"site": sites})
    models = ("logistic", "knn")
    strict = fit(cache, FitConfig(protocol="leave-site-out", models=models, repeats=1), out_root=tmp_path / "r")
    first, second = (row.model for row in strict.metrics)
    for name in ("metrics.json", "predictions.csv"):  # turned round, so that its best is not that of a random split
        file = strict.folder / name
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace(first, "?").replace(second, first).replace("?", second), encoding="utf-8")
    run = fit(cache, FitConfig(models=models, repeats=1), out_root=tmp_path / "r", save="best")
    assert [path.name for path in run.bundles] == [second]
    assert any(note.startswith(f"Saved {second}, the best of 2 models") for note in run.notes)
