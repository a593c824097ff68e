"""The page of a run: figures against scikit-learn, and the whole in a real browser where there is one."""

import csv
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
from ball_features.evaluation.results import ModelRow
from ball_features.evaluation.rows import LadderRow, write_rows
from ball_features.reporting.charts import PALETTE, STYLES
from ball_features.reporting.dots import model_dots, recalls
from ball_features.reporting.figures import lines, reliability, reliability_points, roc, roc_points, roc_says_little
from ball_features.reporting.finding import Finding
from ball_features.reporting.heat import heat
from ball_features.reporting.joint import write_joint_report
from ball_features.reporting.ladder_page import ladder_lines
from ball_features.reporting.layout import layout
from ball_features.reporting.markup import render
from ball_features.reporting.page import write_report
from ball_features.reporting.patient_page import patient_section
from ball_features.reporting.scatter import embedding_map, told_apart
from ball_features.reporting.verdict import findings_to_json
from ball_features.runs.fit import fit
from tests.conftest import with_columns


@pytest.fixture(scope="module")
def run(small_cache, tmp_path_factory):
    config = FitConfig(models=("mlp", "logistic", "colour"), repeats=2)
    return fit(small_cache, config, out_root=tmp_path_factory.mktemp("runs"))


def test_every_run_has_its_page(run):
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    for word in (
        "All models on one axis",
        "Comparison table",
        "Confusion",
        "Reliability",
        "ROC",
        "Training",
        "Errors of mlp",
        "Map of the embeddings",
        "Provenance",
    ):
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
    part = page.split("<summary>Training</summary>")[1].split("</details>")[0]
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


RUNGS = {"random": 0.99, "b": 0.9, "series left out": 0.6}


def write_ladder(root):
    """A folder with a ladder of one model."""
    ladder = root / "ladder"
    ladder.mkdir()
    rows = [
        LadderRow("random", "mlp", "head", 0.99, 0.98, 1),
        LadderRow("series left out", "mlp", "head", 0.6, 0.3, 0.9, 0.5, 0.1),
    ]
    write_rows(ladder / "ladder.csv", rows)
    (ladder / "run.json").write_text(json.dumps({"notes": ["a note"]}))
    return ladder


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
    rows = [LadderRow(rung, "a", "head", *3 * [share]) for rung, share in RUNGS.items()]
    rows.append(LadderRow("random", "colour", "shortcut", 0.9, 0.9, 0.9))  # no series to leave out
    wide, narrow = ladder_lines(rows), ladder_lines(rows, brief=True)
    shown = re.findall(r'text-anchor="middle">([^<]+)<', svg(wide, 720))
    assert shown == ["random", "b", "series left", "out"]
    assert re.findall(r'text-anchor="middle">([^<]+)<', svg(narrow)) == ["1", "2", "3"]
    assert "1 random; 2 b; 3 series left out." in narrow.note
    assert re.findall(r'text-anchor="start">([^<]+)<', svg(wide, 720)) == ["a 60.0", "colour 90.0"]


def test_long_names_leave_room_for_the_plot():
    names = [f"a-class-with-a-name-of-{'many-' * 12}words-{number}" for number in range(3)]
    drawing = layout(recalls([(name, 0.5, 0.4, 0.6) for name in names], "t"), 356)
    assert drawing.frame[2] > 100
    shown = [text.text for text in drawing.texts if text.anchor == "end"]
    assert all(text.startswith("a-class") and "…" in text for text in shown)
    assert [text[-1] for text in shown] == ["0", "1", "2"]


def test_the_ladder_names_the_models_that_matter():
    """The head, the best of the first and of the last rung, the best shortcut; the others are grey."""
    ends = {"mlp": (0.95, 0.5), "best": (0.99, 0.4), "robust": (0.9, 0.8), "knn": (0.7, 0.1), "colour": (0.97, 0.3)}
    ends |= {f"other-{number}": (0.8, 0.2) for number in range(6)}
    rows = []
    for rung, place in (("random", 0), ("series left out", 1)):
        for name, shares in ends.items():
            kind = {"mlp": "head", "colour": "shortcut"}.get(name, "baseline")
            rows.append(LadderRow(rung, name, kind, *3 * [shares[place]]))
    chart = ladder_lines(rows)
    named = {line.name.split()[0]: line for line in chart.lines if line.name}
    assert {"mlp", "best", "robust", "colour"} <= set(named)
    assert len(chart.lines) == 11
    assert "6 other models in grey." in chart.note
    assert len({line.colour for line in named.values()}) == len(named)
    for name, line in named.items():
        assert line.points[:, 1].tolist() == [pytest.approx(100 * share) for share in ends[name]]


def row(name, kind, accuracy, half=0.01):
    return ModelRow(name, kind, {"accuracy": accuracy}, {"accuracy": (accuracy - half, accuracy + half)}, 0.0, 0.0)


def test_the_dot_plot_is_zoomed_to_where_models_differ():
    models = [row("a", "head", 0.99), row("b", "baseline", 0.97), row("colour", "shortcut", 0.96)]
    models += [row("c", "baseline", 0.95), row("majority", "shortcut", 0.3)]
    chart = model_dots(models)
    assert 85 < chart.x.low <= 94
    shapes = {tick.text: mark.shape for tick, mark in zip(chart.y.ticks, chart.marks, strict=True)}
    assert shapes == {"a": "disc", "b": "disc", "colour": "diamond", "c": "disc", "majority": "left"}
    assert [mark.x for mark in chart.marks[:4]] == [pytest.approx(100 * own.accuracy) for own in models[:4]]
    assert (
        [(own.low, own.high) for own in chart.whiskers]
        == [  # none of the one beyond the edge
            (pytest.approx(100 * own.accuracy - 1), pytest.approx(100 * own.accuracy + 1)) for own in models[:4]
        ]
    )
    assert chart.right[0].text == "99.00 (98.0 - 100.0)"
    assert "further to the left" in chart.note
    even = model_dots([row("a", "head", 0.9), row("b", "baseline", 0.5), row("c", "shortcut", 0.3)])
    assert even.x.low <= 29
    assert even.note == ""
    one = model_dots([row("a", "head", 1.0, half=0.0)])
    assert svg(one).count("<circle") == 1


def test_a_roc_curve_that_hugs_the_corner_is_left_out():
    corner, curve = np.array([[0, 0.995], [1, 1]]), np.array([[0, 0], [0.005, 0.6], [0.1, 0.95], [1, 1]])
    assert roc_says_little({"a": corner})
    assert not roc_says_little({"a": corner, "b": curve})
    chart = roc({"a": corner, "b": curve}, "t", negatives=400)
    assert (chart.x.low, chart.x.high) == (-3, 0)
    assert [tick.text for tick in chart.x.ticks] == ["0.1", "1", "10", "100"]
    assert chart.lines[1].points[1].tolist() == [pytest.approx(np.log10(0.005)), 0.6]


def test_a_matrix_of_sixty_classes_stays_readable():
    names = [f"class-{number:02d}" for number in range(60)]
    counts = 50 * np.eye(60, dtype=int)
    counts[3, 7] = 9
    matrix = heat(counts, names, "mlp")
    assert matrix.frequent is not None
    assert [[cell.text for cell in own.cells] for own in matrix.frequent.rows] == [
        ["class-03", "class-07", "9", "15.3"]
    ]
    text = render("heat.html", matrix=matrix)
    assert text.count('<rect class="h') == 61
    assert "class-03 predicted as class-07: 9, 15.3 %" in text
    small = heat(np.array([[3, 1], [0, 0]]), ["a", "b"], "mlp")
    assert small.frequent is None
    assert [cell.percent for cell in small.rows[0].cells] == ["75.0", "25.0"]
    assert render("heat.html", matrix=small).count("<td") == 4


@pytest.mark.slow
def test_the_verdict_stands_first(run, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    found = [Finding("shortcut-ties", "serious", {"accuracy": 0.9}, "Colour <alone> does it.", "ball fit 'my cache'")]
    found += [Finding("not-tested", "note", {}, f"Note {number}.") for number in range(5)]
    (folder / "verdict.json").write_text(json.dumps(findings_to_json(found)))
    page = write_report(folder).read_text(encoding="utf-8")
    assert page.index("Colour &lt;alone&gt; does it.") < page.index("All models on one axis")
    assert "ball fit &#39;my cache&#39;" in page
    assert "<summary>2 more</summary>" in page
    for bad in ("{", "[1]", '[{"code": "a"}]', '[{"code": "a", "severity": "bad", "sentence": "b"}]'):
        (folder / "verdict.json").write_text(bad)
        with pytest.raises(DataError, match=r"verdict\.json"):
            write_report(folder)


def test_a_ladder_is_the_second_figure(run, tmp_path):
    page = write_report(run.folder, tmp_path / "r.html", ladder=write_ladder(tmp_path)).read_text(encoding="utf-8")
    heads = re.findall(r"<h2>([^<]+)</h2>", page)
    assert heads.index("All models on one axis") + 1 == heads.index(
        "The same models when the test images are less and less like the training images"
    )
    with pytest.raises(DataError, match="no ladder"):
        write_report(run.folder, tmp_path / "r.html", ladder=run.folder)


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
    part = page.split("Right, but least certain")[1].split("</details>")[0]
    assert re.findall(r'<button type="button">([^<]+)<', part)[-2:] == ["confidence", "nearest training images"]
    assert ".jpg,</td>" not in part
    assert re.search(r"\.jpg, \w+/", part)  # neighbours have commas between them
    alone = write_report(run.folder, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "nearest training images" not in alone


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_several_runs_in_one_page(run, small_cache, smears, tmp_path):
    ladder = write_ladder(tmp_path)
    cache = read_cache(small_cache)
    out = write_joint_report([run.folder, run.folder, ladder], tmp_path / "all.html", [cache, None, None])
    page = out.read_text(encoding="utf-8")
    assert page.count("<section>") == 3
    assert "Runs side by side" in page
    assert "39.0" in page  # the drop
    assert "a note" in page
    assert page.count('class="map"') == 1


@pytest.mark.slow
def test_patients_and_columns_of_the_cache_are_on_the_page(small_cache, tmp_path):
    """Patients beside images, the answers that are wrong first; the map is coloured by any column of the sheet."""
    path = with_columns(
        small_cache,
        tmp_path / "columns.h5",
        patient=lambda row: f"P{row // 3}",
        site=lambda row: "AB"[row // 3 % 2],
        split=lambda row: f"part-{row % 2}",
        note=lambda row: f"note {row}",
        stain=lambda row: "" if row % 5 == 0 else f"stain-{row % 3}",
    )
    config = FitConfig(models=("logistic", "colour"), protocol="patient-cv", folds=3, repeats=1)
    done = fit(path, config, out_root=tmp_path)
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    choices = re.findall(r'name="map0-colour" value="\d+"[^>]*>([^<]+)<', page)
    assert choices == ["class", "predicted class", "error", "split", "patient", "site", "split (sheet)", "stain"]
    assert "(empty)" in page
    with (done.folder / "patients.csv").open(newline="") as file:
        answers = [row for row in csv.DictReader(file) if row["model"] == "logistic"]
    wrong = {row["patient"] for row in answers if row["label"] != row["predicted"]}
    assert f"{len(wrong)} of 16 answers are wrong" in page
    section = patient_section(done.folder, done.patients, "logistic", "t")
    assert section is not None and section.answers is not None
    assert {row.cells[0].text for row in section.answers.rows[: len(wrong)]} == wrong
    assert [row.cells[0].text for row in section.models.rows] == [row.model for row in done.metrics]
    for row, own in zip(section.models.rows, done.patients, strict=True):
        assert row.cells[2].text.startswith(f"{100 * own.values['accuracy']:.1f} (")
    agreement = np.mean([float(row["agreement"]) for row in answers])
    assert section.mean_agreement == f"{100 * agreement:.1f}"
    assert patient_section(done.folder, [], "logistic", "t") is None
