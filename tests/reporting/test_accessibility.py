"""axe-core finds no violation on the pages, wide and narrow, light and dark; needs Chromium, Playwright and axe-core.

BALL_AXE names `axe.min.js` (`npm install axe-core` in a folder outside the repository).
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from ball_features import FitConfig, evaluate, fit, read_bundle, read_cache
from ball_features.audit.findings import audit, write_groups
from ball_features.audit.summary import AuditSummary
from ball_features.dataset.manifest import scan
from ball_features.deployment.predict import predict
from ball_features.reporting.assess_page import write_assess_report
from ball_features.reporting.audit_page import write_audit
from ball_features.reporting.joint import write_joint_report
from ball_features.reporting.page import write_report
from ball_features.runs.compare import compare
from ball_features.runs.label_check import check_labels
from ball_features.runs.ladder import ladder
from ball_features.runs.learning_curve import learning_curve

AXE = Path(os.environ.get("BALL_AXE", "node_modules/axe-core/axe.min.js"))
PAGES = ("report", "audit", "predictions", "evaluation", "assess", "ladder", "compared", "curve", "labels", "runs")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed"),
    pytest.mark.skipif(not AXE.is_file(), reason="BALL_AXE does not name axe.min.js of axe-core"),
]


@pytest.fixture(scope="module")
def pages(small_cache, smears, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    config = FitConfig(models=("mlp", "logistic", "colour"), repeats=2)
    run = fit(small_cache, config, out_root=folder, save="logistic")
    write_report(run.folder, folder / "report.html", read_cache(small_cache), smears)
    found, groups = audit(scan(smears)), folder / "groups.csv"
    write_audit(found, smears, folder / "audit.html")
    write_groups(found, groups)
    config = FitConfig(models=("logistic", "majority", "colour"), repeats=1, groups=str(groups))
    rungs = ladder(small_cache, config, out_root=folder).folder
    counted = AuditSummary.of(found)
    write_assess_report(folder / "assess.html", rungs, read_cache(small_cache), groups, counted, "IMAGES")
    bundle = run.folder / "models" / "logistic"
    assert read_bundle(bundle).classes
    predict(bundle, [smears]).write(folder / "predictions.html")
    unknown = np.where(np.arange(48) % 5 == 0, "Other", read_cache(small_cache).label)
    several = {"patient": [f"P{row % 6}" for row in range(48)], "site": [f"S{row % 2}" for row in range(48)]}
    sheet = {"path": read_cache(small_cache).path.tolist(), "label": unknown.tolist()} | several
    evaluate(bundle, small_cache, sheet=sheet, out=folder)
    quick = FitConfig(models=("logistic", "colour"), repeats=2)
    both = [str(small_cache), str(shutil.copy(small_cache, folder / "other.h5"))]
    compared, _ = compare(both, quick, out_root=folder, name="compared")
    curve = learning_curve(small_cache, quick, out_root=folder, name="curve").folder
    check_labels(small_cache, folder / "labels.csv", FitConfig(), page=folder / "labels.html", images=smears)
    for name, made in (("ladder", rungs), ("compared", compared.folder), ("curve", curve)):
        (folder / f"{name}.html").write_bytes((made / "report.html").read_bytes())
    write_joint_report([run.folder, rungs, curve], folder / "runs.html", [read_cache(small_cache), None, None])
    return folder


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_page_has_no_violation(pages, name, theme, width):
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        view.goto((pages / f"{name}.html").as_uri())
        view.evaluate("document.querySelectorAll('details').forEach((item) => { item.open = true; })")
        view.evaluate(AXE.read_text(encoding="utf-8"))
        found = view.evaluate("axe.run()")["violations"]
        assert [(item["id"], item["nodes"][0]["html"][:200]) for item in found] == []
        assert view.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        browser.close()
