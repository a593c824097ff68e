"""The verdict in one sentence, for each kind of result."""

from dataclasses import replace

import pytest

from ball_features.reporting.evidence import AuditEvidence, DataEvidence, Evidence, ExtractionEvidence, ModelEvidence
from ball_features.reporting.headline import beyond_headline, headline
from ball_features.reporting.verdict import verdict
from tests.reporting.test_verdict import AWAY, CASES, FALL, HOLD, LENIENT, MAJORITY, SOUND, model, protocol

COLOURS = protocol(model("mlp", 0.95, "head"), model("colour", 0.945, "shortcut"), MAJORITY)
SITES = protocol(ModelEvidence("mlp", "head", 0.29, 0.13, 0.52), name="sites left out", unit="site", groups=3)
GROUPS = protocol(ModelEvidence("mlp", "head", 0.64, 0.55, 0.72), name="groups kept together", unit="group", groups=80)
UNCERTAIN = protocol(model("mlp", 0.90, "head", 0.1), name="sites left out", unit="site", groups=3)
COPIES = AuditEvidence(800, near=2500, in_pairs=800, groups=85, largest_group=12, majority=0.5)

EXPECTED = {
    "it holds": (
        SOUND,
        "The score holds: 95.0 % on random splits, 94.0 % (95 % CI 92 to 96) on patients that the model has not seen. "
        "Not tested: other hospitals.",
    ),
    "it holds where little could be tested": (
        Evidence((LENIENT, replace(HOLD, name="runs of neighbouring files kept together", unit="block"))),
        "The score holds: 95.0 % on random splits, 94.0 % (95 % CI 92 to 96) on images that were not taken next to "
        "training images, as far as the order of files tells. Not tested: copies and overlapping fields, new patients, "
        "other hospitals.",
    ),
    "it falls on series": (
        Evidence((LENIENT, FALL)),
        "Expect about 55 % (95 % CI 35 to 75) on slides that the model has not seen, not the 95.0 % of random splits; "
        "guessing the most frequent class gives 50.0 %.",
    ),
    "it falls on sites, and colours do as well": (
        Evidence((COLOURS, SITES)),
        "Expect about 29 % (95 % CI 13 to 52) at a hospital that the model has not seen, not the 95.0 % of random "
        "splits; guessing the most frequent class does no worse, with 50.0 %.",
    ),
    "copies": (
        Evidence((LENIENT, GROUPS), audit=COPIES),
        "Expect about 64 % (95 % CI 55 to 72) on photographs that the model has not seen, not the 95.0 %",
    ),
    "copies that nothing was done about": (Evidence((LENIENT,), audit=COPIES), "The score on random splits is that of"),
    "colours": (Evidence((COLOURS, HOLD)), "The 95.0 % of random splits do not show that the network sees cells."),
    "too few sites": (
        Evidence((LENIENT, UNCERTAIN)),
        "Between 80 % and 100 % at a hospital that the model has not seen (90.0 % here), where random splits give 95.0",
    ),
    "a scale bar": (
        replace(SOUND, audit=AuditEvidence(9, overlay_accuracy=0.9, majority=0.5)),
        "The score may be that",
    ),
    "a leak": (
        Evidence((LENIENT, FALL), DataEvidence(600, leaks={"patients": 24})),
        "The score of the given split cannot be quoted",
    ),
    "a network that saw them": (
        replace(SOUND, extraction=ExtractionEvidence("dinobloom-b", trained_on=("Acevedo 2020",))),
        "No score on these images can be quoted",
    ),
    "random weights": (
        replace(SOUND, extraction=ExtractionEvidence("densenet201", random_weights=True)),
        "The network's scores say nothing",
    ),
    "nothing learnt": (
        Evidence((protocol(model("mlp", 0.505), MAJORITY),)),
        "Nothing shows that the network has learnt anything: 50.5 % (95 % CI 50 to 52) on random splits; guessing the "
        "most frequent class gives 50.0 %.",
    ),
    "nothing that holds for a new site": (
        Evidence((replace(SITES, models=(*SITES.models, model("majority", 0.37, "shortcut"))),)),
        "Nothing shows that the network is of use at a hospital that the model has not seen: 29.0 % (95 % CI 13 to 52)",
    ),
    "random splits alone": (
        Evidence((LENIENT,)),
        "95.0 % (95 % CI 94 to 96) on random splits; guessing the most frequent class gives 50.0 %. Not tested: copies "
        "and overlapping fields, new patients, other hospitals.",
    ),
    "few patients": (
        Evidence((LENIENT, replace(HOLD, models=(ModelEvidence("mlp", "head", 0.95, 0.6, 1.0),)))),
        "Between 60 % and 100 % on patients that the model has not seen (95.0 % here), where random splits give 95.0 %",
    ),
    "a site for each class": (
        Evidence((LENIENT,), DataEvidence(600, {"a": 300, "b": 300}, site_accuracy=1.0)),
        "The score may be that of the hospital's stain or camera",
    ),
    "a patient for each class": (
        Evidence((LENIENT,), DataEvidence(600, few_patients={"a": 1, "b": 1})),
        "The score may be that of single patients",
    ),
    "a model elsewhere": (Evidence(external=AWAY), ""),
    "nothing at all": (Evidence(), ""),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_headline(name):
    evidence, begins = EXPECTED[name]
    said = headline(verdict(evidence))
    assert said.startswith(begins)
    assert bool(said) == bool(begins)


@pytest.mark.parametrize("name", CASES)
def test_every_verdict_has_one_sentence_or_none(name):
    """No headline speaks of a score that holds where the verdict has a serious finding."""
    found = verdict(CASES[name][0])
    said = headline(found)
    assert said == "" or (said.endswith(".") and "nan" not in said)
    if any(finding.severity == "serious" for finding in found):
        assert not said.startswith("The score holds")


def test_the_headline_is_not_said_twice():
    assert [own.code for own in beyond_headline(verdict(SOUND))] == ["nothing-found"]
    for evidence in (Evidence((LENIENT, FALL)), Evidence((LENIENT, HOLD, FALL)), Evidence()):
        assert beyond_headline(verdict(evidence)) == verdict(evidence)


def test_what_was_tested_is_listed_where_nothing_was_found():
    sentence = verdict(SOUND)[-1].sentence
    assert sentence == (
        "Nothing was found that makes this score misleading. Tested: random splits; patients left out; copies, "
        "overlapping fields and scale bars. Not tested: other hospitals (the data do not name them)."
    )


@pytest.mark.parametrize("lost", ["guessing", "strict_low", "strict_accuracy", "unit"])
def test_findings_of_an_earlier_version_lack_numbers(lost):
    for evidence in (SOUND, Evidence((LENIENT, FALL)), Evidence((LENIENT, UNCERTAIN))):
        old = [replace(own, numbers={k: v for k, v in own.numbers.items() if k != lost}) for own in verdict(evidence)]
        assert "nan" not in headline(old)
