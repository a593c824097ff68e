"""The audit's page and summary: every finding is on them, and nothing is fetched from elsewhere."""

import io
import itertools
import re
import shutil

import numpy as np
import pytest
from rich.console import Console

from ball_features import ExtractConfig, extract
from ball_features.audit.findings import audit
from ball_features.audit.summary import AuditSummary
from ball_features.dataset.manifest import scan
from ball_features.dataset.synthetic import draw_smears
from ball_features.errors import CacheError
from ball_features.reporting.audit_evidence import audit_evidence
from ball_features.reporting.audit_page import cached_embeddings, summary, write_audit
from ball_features.reporting.audit_sections import series_chart
from ball_features.reporting.evidence import Evidence
from ball_features.reporting.verdict import verdict


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smears")
    draw_smears(folder, per_class=12, seed=3, overlay_share=1, shared_fields=1, near_duplicates=1, series=2)
    shutil.copy(next((folder / "Pro").iterdir()), folder / "Benign" / "again.jpg")
    return folder, audit(scan(folder))


@pytest.mark.slow
def test_the_page_shows_each_kind_of_overlay_enlarged(found, tmp_path):
    folder, result = found
    write_audit(result, folder, tmp_path / "audit.html")
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    for kind in result.overlays.names:
        part = page.split(f"<h3>{kind}:")[1].split("<h")[0]
        assert part.count('class="zoom"') >= min(10, (result.overlay == kind).sum())
        assert part.count("<img") > part.count('class="zoom"')  # some whole ones beside them
    for title in (
        "Label conflicts: 1 pair",
        "Identical pixels: 1 pair",
        "Likely series",
        "Likely batches",
        "Near-duplicates: ",
        "Overlapping fields: ",
    ):
        assert title in page
    copies = page.split("<summary>Identical pixels:")[1].split("</details>")[0]
    assert copies.count("<img") == 2
    assert "Benign/again.jpg and Pro/" in copies
    assert set(re.findall(r'src="([^",]*)', page)) == {"data:image/jpeg;base64"}
    order = [
        page.index(words) for words in ("<h2>Verdict", "<h2>Burned-in", "<h2>Likely series", "Overlapping fields: ")
    ]
    assert order == sorted(order)
    for kind in result.overlays.names:
        counts = [(result.label[result.overlay == kind] == name).sum() for name in np.unique(result.label)]
        line = page.split(f'<th scope="row">{kind}</th>')[-1].split("</tr>")[0]
        assert [int(count) for count in re.findall(r"<small>(\d+)</small>", line)] == counts
    for name in result.series.batch_trust:
        assert f">{name}</td>" in page


@pytest.mark.slow
def test_the_chart_of_series_holds_every_image_once(found):
    """Stretches of a class fill its file order without a gap; each lies in the row of its series."""
    _, result = found
    for brief, unit in ((False, result.series.series), (True, result.label)):
        chart = series_chart(result, brief=brief)
        names = [tick.text for tick in chart.y.ticks]
        assert sorted(names) == sorted(set(unit.tolist()))
        for row, name in enumerate(names):
            stretches = [own for own in chart.whiskers if own.y == row]
            assert sum(own.high - own.low for own in stretches) == (unit == name).sum()
            assert {own.note for own in stretches} == set(result.series.batch[unit == name].tolist())
    for name in np.unique(result.label):
        row = [tick.text for tick in chart.y.ticks].index(name)
        ends = sorted((own.low, own.high) for own in chart.whiskers if own.y == row)
        assert ends[0][0] == -0.5
        assert all(one[1] == two[0] for one, two in itertools.pairwise(ends))


@pytest.mark.slow
def test_the_verdict_of_an_audit_rests_on_its_numbers(found):
    _, result = found
    facts, evidence = AuditSummary.of(result).to_dict(), audit_evidence(result)
    assert (evidence.exact, evidence.near) == (facts["exact_duplicate_pairs"], facts["near_duplicate_pairs"])
    linked = {name for pair in facts["pairs"] for name in (pair["first"], pair["second"])}
    linked |= {name for names in facts["exact"] for name in names}
    assert (evidence.shared, evidence.in_pairs) == (facts["shared_field_pairs"], len(linked))
    assert (evidence.groups, evidence.largest_group) == (facts["groups"], facts["largest_group"])
    assert evidence.overlay_accuracy == facts["shortcut_accuracy"]["overlay, random folds"]
    assert evidence.majority == facts["shortcut_accuracy"]["majority"]
    assert {finding.code for finding in verdict(Evidence(audit=evidence))} >= {"label-conflicts"}


@pytest.mark.slow
def test_the_summary_says_what_each_shortcut_reaches(found):
    _, result = found
    screen = Console(width=160, file=io.StringIO())
    screen.print(summary(result))
    text = screen.file.getvalue()
    for words in (
        "overlay, random folds",
        "% accuracy without seeing a cell's shape",
        "1 pair that show the same under",
    ):
        assert words in text
    assert re.search(r"likely series +(none: parts|\d+, inferred from class)", text)
    assert re.search(r"likely batches +(none: parts|\d+, inferred from stain)", text)
    facts = AuditSummary.of(result).to_dict()
    assert set(facts["batches"]) == set(result.series.batch)
    assert all(0 <= item["confidence"] <= 1 for item in [*facts["series"].values(), *facts["batches"].values()])


@pytest.mark.slow
def test_a_cache_that_knows_what_is_corrupt_lacks_nothing(tmp_path, few_smears, tiny_densenet):
    folder = shutil.copytree(few_smears, tmp_path / "images")
    whole = sorted((folder / "Pro").iterdir())
    whole[0].write_bytes(whole[0].read_bytes()[:300])
    cache = tmp_path / "a.h5"
    done = extract(folder, cache, ExtractConfig(tiny_densenet, weights="random", input_px=64, precision="fp32"))
    assert [item.path for item in done.rejected] == [f"Pro/{whole[0].name}"]
    manifest = scan(folder)
    embeddings = cached_embeddings(cache, manifest)
    assert np.isnan(embeddings).all(1).tolist() == [path == f"Pro/{whole[0].name}" for path in manifest.path]
    assert AuditSummary.of(audit(manifest, embeddings=embeddings)).rejected.keys() == {f"Pro/{whole[0].name}"}
    shutil.copy(whole[1], whole[0])
    with whole[0].open("ab") as file:
        file.write(b"other bytes")  # mended since: the cache is not up to date
    with pytest.raises(CacheError, match="lacks 1 of 24 images"):
        cached_embeddings(cache, scan(folder))
