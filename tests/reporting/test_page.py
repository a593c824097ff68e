"""The page of a run: figures against scikit-learn, and the whole in a real browser where there is one."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from ball_features.cache import read_cache
from ball_features.config import FitConfig
from ball_features.errors import DataError
from ball_features.evaluation.metrics import calibration_error
from ball_features.reporting.charts import PALETTE, STYLES, layout
from ball_features.reporting.figures import embedding_map, lines, reliability, reliability_points, roc_points
from ball_features.reporting.image_lists import told_apart
from ball_features.reporting.markup import render
from ball_features.reporting.page import write_report
from ball_features.runs.fit import fit


@pytest.fixture(scope="module")
def run(small_cache, tmp_path_factory):
    config = FitConfig(models=("mlp", "logistic", "colour"), repeats=2)
    return fit(small_cache, config, out_root=tmp_path_factory.mktemp("runs"))


def test_every_run_has_its_page(run):
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    for word in ("Comparison", "Confusion", "ROC", "Training", "Errors of mlp", "Map of the embeddings", "Provenance"):
        assert word in page
    assert not re.search(r'(src|href)="?https?:', page)
    assert "<img" not in page  # no picture of an image leaves the machine
    assert run.details["cache_attributes"]["weights_sha256"] in page
    assert ".partial" not in page  # the folder's name while it is written


def test_each_head_has_its_own_training_curves(run, tmp_path):
    """As `ball compare` and `ball tune` leave them; and leave-group-out, where the first fold was not possible."""
    folder = shutil.copytree(run.folder, tmp_path / "run")
    header = "model,repeat,epoch,train_loss,val_loss,train_accuracy,val_accuracy,fold\n"
    rows = [
        f"{model},{repeat},{epoch},{1 / epoch},0.5,0.5,0.5,{fold}\n"
        for model in ("a/mlp", "b/mlp")
        for repeat, fold in ((0, 1), (0, 2), (1, 1))
        for epoch in (1, 2, 3)
    ]
    (folder / "curves.csv").write_text(header + "".join(rows))
    page = write_report(folder).read_text(encoding="utf-8")
    part = page.split("<h2>Training</h2>")[1].split("<h2>")[0]
    assert re.findall(r'aria-label="([^"]+)"', part) == [
        f"{model}: {kind} of the first split" for model in ("a/mlp", "b/mlp") for kind in ("loss", "accuracy")
    ]
    paths = re.findall(r'<path class="line c\d" d="M([^"]+)"', part)
    assert {path.count("L") for path in paths} == {2}  # three epochs each, none twice


def test_without_the_cache_the_map_is_left_out(run, tmp_path):
    page = write_report(run.folder, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "no map of the embeddings" in page
    with pytest.raises(DataError, match="holds no run"):
        write_report(tmp_path)


def test_names_cannot_break_out_of_the_page(run, small_cache, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    details = json.loads((folder / "run.json").read_text())
    details["notes"] = ["<script>alert(1)</script>"]
    (folder / "run.json").write_text(json.dumps(details))
    page = write_report(folder, cache=read_cache(small_cache)).read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_roc_has_the_area_of_scikit_learn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    positive = rng.random(500) < 0.3
    score = np.round(rng.random(500) + 0.4 * positive, 2)  # with ties
    curve = roc_points(positive, score, points=10_000)
    area = np.trapezoid(curve[:, 1], curve[:, 0])
    assert area == pytest.approx(roc_auc_score(positive, score))
    assert curve[0].tolist() == [0, 0]
    assert curve[-1].tolist() == [1, 1]


def test_reliability_by_hand():
    probability = np.array([[0.95, 0.05], [0.93, 0.07], [0.45, 0.55]])
    points = reliability_points(np.array([0, 1, 1]), probability, bins=10)
    assert points.tolist() == [[0.55, 1.0, 1], [pytest.approx(0.94), 0.5, 2]]


def test_reliability_shows_the_bins_of_the_ece():
    rng = np.random.default_rng(0)
    probability = rng.dirichlet(np.ones(3), 400)
    probability[:40] = [0.6, 0.3, 0.1]  # on a bin's upper end, which belongs to it
    truth = rng.integers(0, 3, 400)
    confidence, right, count = reliability_points(truth, probability).T
    assert count.sum() == 400
    assert (count * np.abs(confidence - right)).sum() / 400 == pytest.approx(calibration_error(truth, probability))


def svg(chart, width=380):
    return render("chart.svg", figure=chart, width=width)


def test_one_bin_is_seen_and_small_ones_are_pale():
    one = svg(reliability(np.array([[0.99, 0.8, 300]]), "lda"))
    assert one.count("<circle") == 1
    assert "pale" not in one
    three = svg(reliability(np.array([[0.4, 1.0, 3], [0.7, 0.6, 90], [0.9, 0.9, 300]]), "mlp"))
    assert three.count("<circle") == 3
    assert three.count(" pale") == 1
    assert three.count("L") == 2  # the line of equality, and one from large bin to large bin


@pytest.mark.parametrize(("low", "high"), [(0, 0.998), (0, 0.744), (0, 0.0401), (1, 40), (0, 99.9), (0, 0), (1, 3)])
def test_ticks_are_round_and_few(low, high):
    text = svg(lines({"a": np.array([[1, low], [2, high]])}, "t", "x", "accuracy"))
    found = [float(value) for value in re.findall(r'text-anchor="end">([^<]+)<', text)]
    assert 2 <= len(found) <= 6
    assert found[-1] >= high
    assert all(len(f"{value:g}") <= 5 for value in found)


def test_names_stand_below_the_rungs():
    text = svg(
        lines(
            {"a": np.array([[0, 99.0], [2, 60.0]])},
            "t",
            "rung",
            "accuracy, %",
            names_x=["random", "b", "series left out"],
        )
    )
    shown = re.findall(r'text-anchor="middle">([^<]+)<', text)
    assert shown[:5] == ["random", "b", "series left", "out", "rung"]


def test_marks_lie_where_their_numbers_say():
    chart = reliability(np.array([[0.25, 0.5, 30], [1.0, 1.0, 30]]), "t")
    drawing = layout(chart, 400)
    left, top, width, height = drawing.frame
    assert [(shape.x, shape.y) for shape in drawing.shapes] == [
        (pytest.approx(left + 0.25 * width), pytest.approx(top + 0.5 * height)),
        (pytest.approx(left + width), pytest.approx(top)),
    ]
    assert left + width <= drawing.width == 400
    assert top + height < drawing.height


def test_series_have_looks_of_their_own():
    names, code = told_apart(np.array([f"s{number:02d}" for number in range(10)]))
    assert len(names) == len(set(code.tolist())) == 10
    many = np.concatenate([np.full(100 - number, f"s{number:02d}") for number in range(30)])
    names, code = told_apart(many)
    assert len(names) == len(PALETTE) * STYLES == code.max() + 1
    assert names[-1] == "7 smaller ones"
    assert names[0] == "s00"
    assert (code == code.max()).sum() == sum(100 - number for number in range(23, 30))
    points = embedding_map(np.zeros((3, 2)), ["a", "b", "c"], {"group": (["x"] * 10, np.array([0, 8, 9]))}).points
    assert [looks for *_, looks in points] == [(0,), (8,), (9,)]


def test_the_ninth_value_is_a_ring_in_the_first_one_s_colour(run, small_cache, tmp_path):
    groups = tmp_path / "groups.csv"
    paths = read_cache(small_cache, embeddings=False).path
    groups.write_text("path,series\n" + "\n".join(f"{path},s{row % 9}" for row, path in enumerate(paths)))
    folder = shutil.copytree(run.folder, tmp_path / "run")
    details = json.loads((folder / "run.json").read_text())
    details["config"]["groups"] = str(groups)
    (folder / "run.json").write_text(json.dumps(details))
    page = write_report(folder, cache=read_cache(small_cache)).read_text(encoding="utf-8")
    assert '<i class="c0 s0"></i>s0</span>' in page
    assert '<i class="c0 s1"></i>s8</span>' in page


def test_lists_of_images(run, small_cache, tmp_path):
    page = write_report(run.folder, tmp_path / "r.html", read_cache(small_cache)).read_text(encoding="utf-8")
    part = page.split("Right, but least certain")[1].split("Map of the")[0]
    assert re.findall(r'<button type="button">([^<]+)<', part)[-2:] == ["confidence", "nearest training images"]
    assert ".jpg,</td>" not in part
    assert re.search(r"\.jpg, \w+/", part)  # neighbours have commas between them
    alone = write_report(run.folder, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "nearest training images" not in alone


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_sorts_the_table_and_paints_the_map(run, tmp_path):
    """The page's own script runs: the script below clicks, and reports what came of it in the title."""
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    probe = """<script>
    window.addEventListener("load", () => {
      const table = document.querySelector("table.sortable");
      const first = () => table.tBodies[0].rows[0].cells[0].textContent;
      const heads = table.tHead.querySelectorAll("button");
      heads[2].click(); const best = first();
      heads[2].click(); const worst = first();
      const point = document.querySelector(".map circle");
      point.dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
      const before = getComputedStyle(point).fill;
      const split = document.querySelectorAll(".colouring input")[1];
      split.checked = true; split.dispatchEvent(new Event("change"));
      const pointed = document.querySelector(".pointed").textContent;
      const requests = performance.getEntriesByType("resource").length;
      document.body.innerHTML = "<pre id=probe>" + JSON.stringify({best, worst, before, pointed, requests}) + "</pre>";
    });
    </script>"""
    path = tmp_path / "probe.html"
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)  # it would keep the probe out
    path.write_text(page.replace("</body>", probe + "</body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command = ["chromium", *options, "--virtual-time-budget=5000", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    seen = json.loads(found.group(1))
    accuracy = {row["model"]: row["accuracy"] for row in run.metrics}
    assert accuracy[seen["best"].split()[0]] == max(accuracy.values())
    assert accuracy[seen["worst"].split()[0]] == min(accuracy.values())
    assert seen["before"].startswith("rgb")
    assert re.match(r"\w+/.*(train|val|test)", seen["pointed"])
    assert seen["requests"] == 0


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_keys_walk_the_map_and_show_thumbnails(run, small_cache, smears, tmp_path):
    api = pytest.importorskip("playwright.sync_api")
    page = write_report(run.folder, tmp_path / "r.html", read_cache(small_cache), thumbnails=smears)
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 390, "height": 800})  # a phone
        errors, asked = [], []
        view.on("pageerror", lambda error: errors.append(str(error)))
        view.on("console", lambda line: errors.append(line.text) if "Content Security" in line.text else None)
        view.on("request", lambda request: asked.append(request.url))
        view.goto(page.as_uri())
        view.focus(".map")
        view.keyboard.press("ArrowRight")
        first = view.inner_text(".pointed")
        view.keyboard.press("ArrowRight")
        second = view.inner_text(".pointed")
        assert first != second
        assert "/" in second
        assert view.locator(".shown").is_visible()
        assert view.locator("td img").count() > 10
        assert view.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert errors == []
        assert all(url.startswith(("file:", "data:")) for url in asked)
        browser.close()


def test_several_runs_in_one_page(run, small_cache, smears, tmp_path):
    import csv

    from ball_features.reporting.joint import write_joint_report

    ladder = tmp_path / "ladder"
    ladder.mkdir()
    header = ["rung", "model", "kind", "accuracy", "accuracy_low", "accuracy_high", "mean_recall", "worst_recall"]
    with (ladder / "ladder.csv").open("w", newline="") as file:
        rows = [
            ["random", "mlp", "head", 0.99, 0.98, 1, "", ""],
            ["series left out", "mlp", "head", 0.6, 0.3, 0.9, 0.5, 0.1],
        ]
        csv.writer(file).writerows([header, *rows])
    (ladder / "run.json").write_text(json.dumps({"notes": ["a note"]}))
    cache = read_cache(small_cache)
    out = write_joint_report([run.folder, run.folder, ladder], tmp_path / "all.html", [cache, None, None])
    page = out.read_text(encoding="utf-8")
    assert page.count("<section>") == 3
    assert "Runs side by side" in page
    assert "39.0" in page  # the drop
    assert "a note" in page
    assert page.count('class="map"') == 1
