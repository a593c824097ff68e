"""Constructed results and the findings that must, and must not, follow from them."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from ball_features.reporting.evidence import (
    AuditEvidence,
    DataEvidence,
    Evidence,
    ExternalEvidence,
    ExtractionEvidence,
    ModelEvidence,
    PredictionEvidence,
    ProtocolEvidence,
)
from ball_features.reporting.finding import SEVERITIES, Finding
from ball_features.reporting.rule_words import percent
from ball_features.reporting.verdict import findings_to_json, render_verdict, verdict

ROOT = Path(__file__).parents[2]


def model(name, accuracy, kind="baseline", spread=0.01, **more):
    return ModelEvidence(name, kind, accuracy, accuracy - spread, min(accuracy + spread, 1.0), **more)


def protocol(*models, name="random splits", unit="image", tested=(("a", 300), ("b", 300)), **more):
    ordered = tuple(sorted(models, key=lambda item: -item.accuracy))
    return ProtocolEvidence(name, unit, ordered, dict(tested), **more)


MAJORITY = model("majority", 0.5, "shortcut")
HISTOGRAM, WEAK = model("histogram", 0.905, "shortcut"), model("colour", 0.55, "shortcut")
LENIENT = protocol(model("mlp", 0.95, "head"), model("colour", 0.60, "shortcut"), MAJORITY)
FALL = protocol(model("mlp", 0.55, "head", 0.2), name="series left out", unit="series", groups=12)
HOLD = protocol(model("mlp", 0.94, "head", 0.02), name="patients left out", unit="patient", groups=60)
AUDIT = AuditEvidence(images=1000, groups=1000, majority=0.5)
SOUND = Evidence((LENIENT, HOLD), DataEvidence(600, patients=60), audit=AUDIT)
AWAY = ExternalEvidence(299, 0.60, 0.54, 0.66, sold=0.95, drop_low=0.29, drop_high=0.41, confidence=0.95, coverage=0.95,
                        covered=0.60, covered_high=0.66, unusual=1.0)  # fmt: skip


def with_shortcut(accuracy, **more):
    return Evidence((protocol(model("mlp", 0.95, "head"), model("histogram", accuracy, "shortcut", **more), MAJORITY),))


CASES = {
    "sound": (SOUND, {"holds-when-strict", "nothing-found"}, {"shortcut-matches-network", "falls-when-strict"}),
    "shortcut ties": (with_shortcut(0.945), {"shortcut-matches-network", "not-tested"}, {"shortcut-strong"}),
    "shortcut wins": (with_shortcut(0.97), {"shortcut-matches-network"}, set()),
    "shortcut by test": (
        with_shortcut(0.93, ties_best=True),
        {"shortcut-not-excluded"},
        {"shortcut-matches-network", "shortcut-strong"},
    ),
    "shortcut strong": (with_shortcut(0.88), {"shortcut-strong"}, {"shortcut-matches-network"}),
    "shortcut weak": (with_shortcut(0.6), {"nothing-found"}, {"shortcut-strong", "shortcut-matches-network"}),
    "nothing learnt": (
        Evidence((protocol(model("mlp", 0.503, "head"), model("colour", 0.5, "shortcut"), MAJORITY),)),
        {"nothing-learnt"},
        {"shortcut-matches-network", "shortcut-strong", "nothing-found"},
    ),
    "nothing learnt, by chance above guessing": (
        Evidence(
            (
                protocol(model("mlp", 0.55, "head", 0.08), model("histogram", 0.545, "shortcut", 0.08), MAJORITY),
                replace(FALL, models=(model("mlp", 0.42, "head", 0.05),)),
            )
        ),
        {"nothing-learnt"},
        {"shortcut-matches-network", "falls-when-strict", "network-not-needed", "holds-when-strict"},
    ),
    "rare classes are found, though no more images are right": (
        Evidence(
            (
                protocol(
                    model("mlp", 0.91, "head", 0.03, balanced=0.8),
                    model("majority", 0.9, "shortcut"),
                    tested=(("a", 270), ("b", 30)),
                ),
            )
        ),
        {"nothing-found"},
        {"nothing-learnt"},
    ),
    "nuclei do it": (
        Evidence((protocol(model("mlp", 0.95), model("nuclei", 0.95, "shortcut"), MAJORITY),)),
        {"network-not-needed"},
        {"shortcut-matches-network"},
    ),
    "only colours with cells in them do it": (
        Evidence((protocol(model("mlp", 0.91), HISTOGRAM, WEAK, MAJORITY),)),
        {"network-not-needed"},
        {"shortcut-matches-network", "shortcut-strong"},
    ),
    "colours with cells in them do most of it": (
        Evidence((protocol(model("mlp", 0.95), model("histogram", 0.92, "shortcut"), WEAK, MAJORITY),)),
        {"colours-tell-most"},
        {"network-not-needed", "shortcut-matches-network", "shortcut-strong"},
    ),
    "only colours with cells in them, of random weights": (
        Evidence((protocol(model("mlp", 0.70), HISTOGRAM, WEAK, MAJORITY),)),
        {"network-not-needed"},
        {"shortcut-matches-network"},
    ),
    "a random network says nothing": (
        Evidence(
            (protocol(model("mlp", 0.55), model("colour", 0.60, "shortcut"), MAJORITY),),
            extraction=ExtractionEvidence("densenet201", random_weights=True),
        ),
        {"random-weights"},
        {"shortcut-matches-network", "shortcut-strong", "network-not-needed"},
    ),
    "mean colours tell all, the network nothing": (
        Evidence((protocol(model("mlp", 0.5), model("colour", 0.97, "shortcut"), MAJORITY),)),
        {"shortcut-matches-network"},
        set(),
    ),
    "guessing is no score to keep": (
        Evidence((protocol(model("mlp", 0.505), MAJORITY), replace(HOLD, models=(model("mlp", 0.5),)))),
        {"nothing-learnt"},
        {"holds-when-strict"},
    ),
    "they fall on series": (
        Evidence(
            (
                protocol(model("mlp", 0.91), HISTOGRAM, WEAK, MAJORITY),
                protocol(
                    model("mlp", 0.9),
                    model("histogram", 0.6, "shortcut"),
                    name="series left out",
                    unit="series",
                    groups=12,
                ),
            )
        ),
        {"shortcut-matches-network"},
        {"network-not-needed"},
    ),
    "mean colours are strong too": (
        Evidence((protocol(model("mlp", 0.91), HISTOGRAM, model("colour", 0.85, "shortcut"), MAJORITY),)),
        {"shortcut-matches-network"},
        {"network-not-needed"},
    ),
    "groups of single images are no stricter": (
        Evidence(
            (LENIENT, protocol(model("mlp", 0.8, "head", 0.2), name="group kept together", unit="group", groups=600))
        ),
        {"nothing-found"},
        {"falls-when-strict", "fall-uncertain", "holds-when-strict"},
    ),
    "falls": (Evidence((LENIENT, FALL)), {"falls-when-strict", "not-tested"}, {"nothing-found", "holds-when-strict"}),
    "falls, few groups": (
        Evidence((LENIENT, protocol(model("mlp", 0.90, "head", 0.1), name="sites left out", unit="site", groups=3))),
        {"fall-uncertain", "few-groups"},
        {"falls-when-strict"},
    ),
    "holds, as far as a few patients say": (
        Evidence((LENIENT, replace(HOLD, models=(ModelEvidence("mlp", "head", 0.95, 0.6, 1.0),)))),
        {"fall-uncertain", "nothing-found"},
        {"holds-when-strict", "falls-when-strict"},
    ),
    "copies in test and training": (
        Evidence(
            (
                LENIENT,
                protocol(model("mlp", 0.6, "head"), name="identical copies kept together", unit="copy", groups=90),
            )
        ),
        {"falls-when-strict"},
        {"nothing-found"},
    ),
    "no copies": (
        Evidence(
            (LENIENT, protocol(model("mlp", 0.6), name="identical copies kept together", unit="copy", groups=600))
        ),
        {"nothing-found"},
        {"falls-when-strict"},
    ),
    "each site has its class": (
        replace(SOUND, data=DataEvidence(600, {"a": 300, "b": 300}, sites=2, site_accuracy=1.0, untestable=("site",))),
        {"site-tells-class"},
        {"nothing-found"},
    ),
    "sites tell the class, and were left out": (
        Evidence(
            (LENIENT, replace(HOLD, unit="site", name="sites left out")),
            DataEvidence(600, {"a": 300, "b": 300}, sites=12, site_accuracy=0.9),
        ),
        {"holds-when-strict"},
        {"site-tells-class"},
    ),
    "sites share classes": (
        replace(SOUND, data=DataEvidence(600, {"a": 300, "b": 300}, sites=3, site_accuracy=0.52)),
        set(),
        {"site-tells-class"},
    ),
    "a patient for each class": (
        replace(SOUND, data=DataEvidence(600, few_patients={"a": 1, "b": 2}, untestable=("patient",))),
        {"class-of-few-patients"},
        {"nothing-found"},
    ),
    "falls on a rung in between": (
        Evidence((LENIENT, FALL, HOLD)),
        {"falls-when-strict"},
        {"holds-when-strict"},
    ),
    "leaks": (
        replace(SOUND, data=DataEvidence(600, patients=60, leaks={"patients": 24, "identical files": 0})),
        {"given-split-leaks"},
        {"nothing-found"},
    ),
    "no leak": (replace(SOUND, data=DataEvidence(600, leaks={"patients": 0})), set(), {"given-split-leaks"}),
    "conflicts": (
        replace(SOUND, audit=replace(AUDIT, conflicts=2, conflict_example=("a/1.png", "b/1.png"))),
        {"label-conflicts"},
        {"nothing-found"},
    ),
    "doubtful labels": (
        replace(SOUND, data=DataEvidence(600, doubtful=(("Pre/1.png", "Pre", "Pro"),))),
        {"labels-doubtful"},
        {"label-conflicts"},
    ),
    "lookalikes": (
        replace(SOUND, audit=AuditEvidence(1847, 1, 1098, 71, 277, groups=1600, conflicts=559, majority=0.37)),
        {"lookalikes"},
        {"label-conflicts", "overlapping-images", "augmented-copies"},
    ),
    "copies, some of them labelled twice": (
        replace(SOUND, audit=AuditEvidence(1847, 1, 1098, 71, 277, groups=1600, conflicts=30, majority=0.37)),
        {"label-conflicts", "overlapping-images"},
        {"lookalikes"},
    ),
    "augmented": (
        replace(SOUND, audit=AuditEvidence(800, near=2500, in_pairs=800, groups=85, largest_group=12, majority=0.5)),
        {"augmented-copies"},
        {"overlapping-images", "nothing-found"},
    ),
    "overlapping fields": (
        replace(SOUND, audit=AuditEvidence(3256, 40, 51, 1087, 1465, groups=2300, majority=0.3)),
        {"overlapping-images"},
        {"augmented-copies"},
    ),
    "every image twice": (
        replace(SOUND, audit=AuditEvidence(60, exact=30, in_pairs=60, groups=30, majority=0.5)),
        {"overlapping-images"},
        {"augmented-copies", "nothing-found"},
    ),
    "scale bar": (replace(SOUND, audit=replace(AUDIT, overlay_accuracy=0.8)), {"overlay-tells-class"}, set()),
    "no scale bar": (replace(SOUND, audit=replace(AUDIT, overlay_accuracy=0.51)), set(), {"overlay-tells-class"}),
    "equals": (
        Evidence((protocol(model("a", 0.95, ties_best=True), model("b", 0.949, ties_best=True), MAJORITY),)),
        {"many-equals"},
        set(),
    ),
    "small class": (
        Evidence((protocol(model("mlp", 0.9), tested=(("a", 300), ("b", 7))),)),
        {"class-too-small"},
        set(),
    ),
    "a class of one picture": (
        Evidence((protocol(model("mlp", 0.9), distinct={"a": 300, "b": 1}),)),
        {"class-too-small"},
        set(),
    ),
    "calibration": (Evidence((protocol(model("mlp", 0.95, ece=0.12), MAJORITY),)), {"badly-calibrated"}, set()),
    "calibrated": (Evidence((protocol(model("mlp", 0.95, ece=0.01), MAJORITY),)), set(), {"badly-calibrated"}),
    "elsewhere": (
        Evidence(external=AWAY),
        {"worse-elsewhere", "overconfident-elsewhere", "sets-do-not-cover", "mostly-unusual"},
        {"holds-elsewhere", "nothing-found"},
    ),
    "holds elsewhere": (
        Evidence(
            external=replace(
                AWAY,
                accuracy=0.94,
                drop_low=-0.02,
                drop_high=0.03,
                confidence=0.95,
                covered=0.95,
                covered_high=0.97,
                unusual=0.02,
            )
        ),
        {"holds-elsewhere"},
        {"worse-elsewhere", "overconfident-elsewhere", "sets-do-not-cover", "mostly-unusual"},
    ),
    "elsewhere, few images": (
        Evidence(external=replace(AWAY, images=14, accuracy=0.93, low=0.6, high=0.99, drop_low=-0.1, drop_high=0.4)),
        {"elsewhere-uncertain"},
        {"worse-elsewhere", "holds-elsewhere"},
    ),
    "elsewhere, one patient": (  # no interval
        Evidence(external=replace(AWAY, low=0.0, high=1.0, drop_low=-0.1, drop_high=0.95, patients=1, sites=1)),
        {"elsewhere-uncertain"},
        {"worse-elsewhere", "holds-elsewhere", "not-tested"},
    ),
    "elsewhere, nothing to compare with": (
        Evidence(external=ExternalEvidence(299, 0.60, 0.54, 0.66)),
        {"accuracy-elsewhere"},
        {"worse-elsewhere", "holds-elsewhere", "elsewhere-uncertain", "nothing-found"},
    ),
    "elsewhere, images of training": (
        Evidence(external=replace(AWAY, trained_on=40)),
        {"trained-on-these", "accuracy-elsewhere"},
        {"worse-elsewhere", "holds-elsewhere"},
    ),
    "elsewhere, classes missing": (
        Evidence(external=replace(AWAY, tested={"a": 290, "b": 9, "c": 0})),
        {"classes-absent", "class-too-small"},
        {"labels-unknown"},
    ),
    "elsewhere, every class and patients": (
        Evidence(external=replace(AWAY, tested={"a": 150, "b": 149}, patients=30, sites=2)),
        set(),
        {"classes-absent", "class-too-small", "not-tested", "trained-on-these"},
    ),
    "elsewhere, some unusual": (
        Evidence(external=replace(AWAY, unusual=0.2)),
        {"many-unusual"},
        {"mostly-unusual"},
    ),
    "unusual": (Evidence(predictions=PredictionEvidence(299, 299)), {"mostly-unusual"}, {"nothing-found"}),
    "sure of unusual images": (
        Evidence(predictions=PredictionEvidence(100, 30, confidence=0.95, confidence_unusual=0.93, classes=4)),
        {"many-unusual", "confident-on-unusual"},
        {"mostly-unusual"},
    ),
    "unsure of unusual images": (
        Evidence(predictions=PredictionEvidence(100, 30, confidence=0.7, confidence_unusual=0.4, classes=4)),
        {"many-unusual"},
        {"confident-on-unusual"},
    ),
    "sure, as many flagged as expected": (
        Evidence(predictions=PredictionEvidence(100, 2, confidence=0.95, confidence_unusual=0.99, classes=4)),
        {"nothing-found"},
        {"confident-on-unusual"},
    ),
    "one unusual of many": (Evidence(predictions=PredictionEvidence(299, 3)), {"nothing-found"}, {"many-unusual"}),
    "neighbours": (Evidence(predictions=PredictionEvidence(9, contradicted=2)), {"neighbours-disagree"}, set()),
    "too good": (
        replace(SOUND, data=DataEvidence(600, views_chosen_here=("robust-views",))),
        {"chosen-on-these-data"},
        set(),
    ),
    "random weights": (
        replace(SOUND, extraction=ExtractionEvidence("densenet201", random_weights=True)),
        {"random-weights"},
        set(),
    ),
    "precision": (replace(SOUND, extraction=ExtractionEvidence("vgg16", cosine=0.99)), {"precision-deviates"}, set()),
    "precision unknown": (replace(SOUND, extraction=ExtractionEvidence("vgg16")), set(), {"precision-deviates"}),
    "seen": (
        replace(SOUND, extraction=ExtractionEvidence("dinobloom-b", trained_on=("Acevedo 2020",))),
        {"network-saw-these"},
        {"network-may-know-these"},
    ),
    "site-adapted": (
        replace(SOUND, protocols=tuple(replace(own, adapted=True) for own in SOUND.protocols)),
        {"site-adapted"},
        set(),
    ),
    "not adapted": (SOUND, set(), {"site-adapted"}),
    "perhaps seen": (
        replace(SOUND, extraction=ExtractionEvidence("dinobloom-b", collections=13, recognised=("Acevedo 2020",))),
        {"network-may-know-these"},
        {"network-saw-these"},
    ),
    "perhaps seen, by one of many": (
        replace(SOUND, extraction=ExtractionEvidence("dinobloom-b", collections=13, recognised=("A 2020", "B 2021"))),
        {"network-may-know-these"},
        {"network-saw-these"},
    ),
    "all are known": (
        replace(SOUND, extraction=ExtractionEvidence("dinobloom-b", collections=2, recognised=("A 2020", "B 2021"))),
        set(),
        {"network-may-know-these"},
    ),
    "not seen": (replace(SOUND, extraction=ExtractionEvidence("densenet201")), set(), {"network-may-know-these"}),
    "nothing at all": (Evidence(), {"nothing-found"}, set()),
}


@pytest.mark.parametrize("name", CASES)
def test_findings(name):
    evidence, must, must_not = CASES[name]
    found = verdict(evidence)
    codes = [finding.code for finding in found]
    assert must <= set(codes)
    assert not must_not & set(codes)
    assert len(codes) == len(set(codes))
    order = [SEVERITIES.index(finding.severity) for finding in found[:-1]]
    assert order == sorted(order)
    for finding in found:
        assert finding.sentence.endswith(".")
        assert "nan" not in finding.sentence
        # No finding without its number, but for those that say that nothing was found.
        assert finding.numbers or finding.code == "nothing-found"
    json.dumps(findings_to_json(found), allow_nan=False)


@pytest.mark.parametrize(("accuracy", "said"), [(0.60, True), (0.55, True), (0.50, False)])
def test_a_shortcut_that_does_as_well_where_nothing_alike_was_seen(accuracy, said):
    strict = replace(
        FALL, models=(*FALL.models, model("nuclei", accuracy, "shortcut"), model("majority", 0.9, "shortcut"))
    )
    fall = next(own for own in verdict(Evidence((LENIENT, strict))) if own.code == "falls-when-strict")
    assert ("measurements of dark nuclei alone do as well" in fall.sentence) == said


@pytest.mark.parametrize("unit", ["group", "series"])
def test_no_command_is_advised_that_was_run(unit):
    """Groups of copies that the ladder kept together already need no further run."""
    audit = AuditEvidence(400, near=100, in_pairs=200, groups=300, majority=0.3)
    for case in (audit, replace(audit, near=1500, in_pairs=400, groups=40)):
        found = verdict(Evidence((LENIENT, replace(FALL, unit=unit)), audit=case))
        copies = next(own for own in found if own.code in ("overlapping-images", "augmented-copies"))
        assert ("--protocol group-cv" in copies.next) == (unit != "group")


ONE = {
    "label-conflicts": replace(SOUND, audit=replace(AUDIT, conflicts=1, conflict_example=("a/1.png", "b/1.png"))),
    "given-split-leaks": replace(SOUND, data=DataEvidence(600, leaks={"patients": 1, "copies": 1, "groups": 1})),
    "augmented-copies": replace(SOUND, audit=AuditEvidence(90, near=2500, in_pairs=90, groups=1, majority=0.5)),
    "overlapping-images": replace(SOUND, audit=AuditEvidence(60, 1, 1, 1, 2, groups=59, majority=0.5)),
    "class-too-small": Evidence((protocol(model("mlp", 0.9), tested=(("a", 300), ("b", 1))),)),
    "few-groups": Evidence((LENIENT, replace(HOLD, groups=1))),
    "class-of-few-patients": replace(SOUND, data=DataEvidence(600, few_patients={"a": 1})),
    "trained-on-these": Evidence(external=replace(AWAY, trained_on=1, unknown=1)),
    "labels-unknown": Evidence(external=replace(AWAY, images=1, unknown=1)),
    "many-unusual": Evidence(predictions=PredictionEvidence(9, 1, contradicted=1)),
    "confident-on-unusual": Evidence(
        predictions=PredictionEvidence(5, 1, confidence=0.95, confidence_unusual=0.97, classes=4, contradicted=1)
    ),
    "labels-doubtful": replace(SOUND, data=DataEvidence(600, doubtful=(("Pre/1.png", "Pre", "Pro"),))),
}


@pytest.mark.parametrize("code", ONE)
def test_one_of_a_kind_is_said_in_the_singular(code):
    found = verdict(ONE[code])
    assert code in {finding.code for finding in found}
    for finding in found:
        plural = re.search(
            r"(?<![\d.,])1 (?!series)[a-z]+s\b(?! the| not| given)|\b1 (of \d+ )?[a-z ]*images? are", finding.sentence
        )
        assert plural is None, finding.sentence


@pytest.mark.parametrize(
    ("share", "digits", "said"),
    [(1, 1, "100 %"), (0, 1, "0 %"), (0.5, 1, "50.0 %"), (0.9996, 1, "99.96 %"), (0.004, 0, "0.4 %"), (0.55, 0, "55 %"),
     (0.9999999, 1, "100.000 %")],
)  # fmt: skip
def test_a_share_is_all_or_nothing_only_where_it_is(share, digits, said):
    assert percent(share, digits) == said


@pytest.mark.parametrize(("unit", "severity"), [("patient", "serious"), ("group", "warning")])
def test_copies_of_every_image_are_serious_until_they_were_kept_together(unit, severity):
    audit = AuditEvidence(60, exact=30, in_pairs=60, groups=30, majority=0.5)
    found = verdict(Evidence((LENIENT, replace(HOLD, unit=unit)), audit=audit))
    assert {own.code: own.severity for own in found}["overlapping-images"] == severity


def test_every_code_is_explained_and_tried():
    explained = set(re.findall(r"^- `([a-z-]+)`", (ROOT / "docs/verdict.md").read_text(encoding="utf-8"), re.M))
    seen = {finding.code for evidence, _, _ in CASES.values() for finding in verdict(evidence)}
    seen |= {finding.code for finding in verdict(Evidence(predictions=PredictionEvidence(100, 20)))}
    external = Evidence(external=replace(AWAY, unknown=3))
    seen |= {finding.code for finding in verdict(external)}
    assert seen == explained


def test_the_sentence_of_the_public_set():
    """Colour is as good on random splits, and the same model falls on series left out: in this order, with numbers."""
    lenient = protocol(
        model("linear-svm", 0.9966, spread=0.003),
        model("histogram", 0.9933, "shortcut", 0.003),
        model("majority", 0.302, "shortcut"),
    )
    strict = protocol(
        ModelEvidence("linear-svm", "baseline", 0.55, 0.22, 0.84), name="series left out", unit="series", groups=7
    )
    first, second, *_ = verdict(Evidence((lenient, strict)))
    assert first.code == "falls-when-strict"
    assert "99.7 %" in first.sentence and "55.0 % (95 % CI 22 to 84)" in first.sentence
    assert second.code == "shortcut-matches-network"
    assert "99.3 %" in second.sentence and "without seeing the shape of a single cell" in second.sentence


def test_a_terminal_gets_three_lines_and_one_command():
    from rich.console import Console

    screen = Console(width=200, record=True, file=io.StringIO())
    found = verdict(Evidence((LENIENT, FALL), audit=AuditEvidence(100, 40, in_pairs=60, groups=70, majority=0.5)))
    screen.print(render_verdict(found))
    lines = [line for line in screen.export_text().splitlines() if line.strip()]
    assert lines[0].startswith(
        "Expect about 55 % (95 % CI 35 to 75) on slides that the model has not seen, not the 95.0 %"
    )
    assert lines[1].startswith("Serious: On random splits the best model that uses the network (mlp) reaches 95.0 %")
    assert sum(line.startswith("Next: ball ") for line in lines) == 1


def test_known_sites_are_quoted_before_inferred_series():
    sites = protocol(model("mlp", 0.60, "head", 0.1), name="sites left out", unit="site", groups=12)
    first, *_ = verdict(Evidence((LENIENT, FALL, sites)))
    assert first.code == "falls-when-strict"
    assert first.numbers["strict"] == "sites left out"
    first, *_ = verdict(Evidence((LENIENT, FALL, HOLD)))  # nothing falls on patients
    assert first.numbers["strict"] == "series left out"


def test_a_finding_is_one_line_whatever_names_hold():
    found = Finding("x", "note", {}, "the file a\n\x1b[31mred\r.png is odd")
    assert found.sentence == "the file a\\n\\x1b[31mred\\r.png is odd"
