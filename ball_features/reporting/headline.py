"""The verdict in one sentence: what the score is worth, for a reader who reads no further."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ball_features.reporting.finding import Finding
from ball_features.reporting.rule_words import percent

__all__ = ["beyond_headline", "headline"]

# What a protocol asks of the model, by the unit that no split divides.
NEW = {
    "site": "at a hospital that the model has not seen",
    "patient": "on patients that the model has not seen",
    "series": "on slides that the model has not seen",
    "copy": "on images of which the model has seen no identical copy",
    "group": "on images of which the model has seen no copy and no overlapping field",
    "block": "on images that were not taken next to training images, as far as the order of files tells",
    "split": "on the test images of the given split",
}
_PHOTOGRAPHS = "on photographs that the model has not seen"
_HOLDS = "The score holds"
_WIDE = 0.1  # length of an interval beside which a tenth of a per cent says nothing
# Findings that take the worth of every score, the strongest first.
_WORTHLESS = {
    "network-saw-these": "No score on these images can be quoted: the network was trained on images among them.",
    "given-split-leaks": "The score of the given split cannot be quoted: test images and training images are related.",
}
_UNSETTLED = {
    "shortcut-matches-network": "The {network_accuracy} of {lenient} do not show that the network sees cells.",
    "augmented-copies": "The score on random splits is that of copies: it says nothing of a new photograph.",
    "overlay-tells-class": "The score may be that of the burned-in scale bar, not of the cells.",
    "site-tells-class": "The score may be that of the hospital's stain or camera, not of the cells.",
    "class-of-few-patients": "The score may be that of single patients, not of the disease.",
    "random-weights": "The network's scores say nothing: its weights are random.",
    "shortcut-not-excluded": "These images do not show that the network sees more than colours.",
    "shortcut-strong": "Most of the score can be reached without seeing the shape of a single cell.",
    "chosen-on-these-data": "The score is too good: views or settings were chosen on these images.",
}


def beyond_headline(findings: Sequence[Finding]) -> list[Finding]:
    """Findings that say more than the headline, which stands above them."""
    said = headline(findings).startswith(_HOLDS)
    return [finding for finding in findings if not (said and finding.code == "holds-when-strict")]


def headline(findings: Sequence[Finding]) -> str:
    """Say in one sentence what the score is worth; "" where the findings are not about a score of models.

    Args:
        findings: from `verdict`, the most serious first.
    """
    try:
        return _headline(findings)
    except KeyError:  # findings that an earlier version wrote lack some of the numbers
        return ""


def _headline(findings: Sequence[Finding]) -> str:
    found = {finding.code: finding for finding in findings}
    for code, said in _WORTHLESS.items():
        if code in found:
            return said
    if "nothing-learnt" in found and "shortcut-matches-network" not in found:
        return _guessed(found["nothing-learnt"])
    if "falls-when-strict" in found:
        return _fallen(found["falls-when-strict"], copies="augmented-copies" in found)
    if "augmented-copies" not in found and "fall-uncertain" in found:
        return _open(found["fall-uncertain"])
    for code, said in _UNSETTLED.items():
        if code in found and found[code].severity != "note":
            numbers = {n: percent(v) if isinstance(v, float) else v for n, v in found[code].numbers.items()}
            return said.format_map(numbers)
    if "overlapping-images" in found and found["overlapping-images"].severity == "serious":
        return "Most images show the same as another one: the score of random splits says little of new images."
    held = found.get("holds-when-strict")
    if held is not None:
        numbers = held.numbers
        return (
            f"{_HOLDS}: {percent(numbers['lenient_accuracy'])} on {numbers['lenient']}, "
            f"{percent(numbers['strict_accuracy'])} (95 % CI {_ends(held)}) {_where(held)}.{_untested(findings)}"
        )
    return _lenient(findings[-1]) if findings and not _is_serious(findings) else ""


def _is_serious(findings: Sequence[Finding]) -> bool:
    return any(finding.severity == "serious" for finding in findings)


def _lenient(closing: Finding) -> str:
    """What is known where no stricter protocol could be run."""
    if closing.code not in ("nothing-found", "not-tested") or "accuracy" not in closing.numbers:
        return ""
    numbers = closing.numbers
    return (
        f"{percent(numbers['accuracy'])} (95 % CI {100 * numbers['low']:.0f} to {100 * numbers['high']:.0f}) on "
        f"{numbers['lenient']}{_guessing(numbers)}.{_untested([closing])}"
    )


def _guessed(finding: Finding) -> str:
    numbers = finding.numbers
    where = NEW[numbers["unit"]] if numbers["unit"] in ("site", "patient", "series") else ""
    said = f"is of use {where}" if where else "has learnt anything"
    ends = f"{100 * numbers['low']:.0f} to {100 * numbers['high']:.0f}"
    return (
        f"Nothing shows that the network {said}: {percent(numbers['accuracy'])} (95 % CI {ends}) on "
        f"{numbers['lenient']}{_guessing(numbers)}."
    )


def _untested(findings: Sequence[Finding]) -> str:
    """What a score that holds has not stood."""
    names = [name.split(" (")[0] for own in findings for name in own.numbers.get("not_tested", ())]
    return f" Not tested: {', '.join(names)}." if names else ""


def _fallen(fall: Finding, *, copies: bool) -> str:
    numbers = fall.numbers
    where = _PHOTOGRAPHS if copies and numbers["unit"] == "group" else _where(fall)
    wide = numbers["strict_high"] - numbers["strict_low"] > _WIDE
    expected = f"about {percent(numbers['strict_accuracy'], 0)}" if wide else percent(numbers["strict_accuracy"])
    return (
        f"Expect {expected} (95 % CI {_ends(fall)}) {where}, not the "
        f"{percent(numbers['lenient_accuracy'])} of {numbers['lenient']}{_guessing(numbers)}."
    )


def _guessing(numbers: Mapping[str, Any]) -> str:
    if "guessing" not in numbers:  # a verdict that an earlier version wrote
        return ""
    as_good = numbers["guessing"] >= numbers.get("strict_accuracy", 1)
    verb = "does no worse, with" if as_good else "gives"
    return f"; guessing the most frequent class {verb} {percent(numbers['guessing'])}"


def _open(fall: Finding) -> str:
    numbers = fall.numbers
    return (
        f"Between {percent(numbers['strict_low'], 0)} and {percent(numbers['strict_high'], 0)} {_where(fall)} "
        f"({percent(numbers['strict_accuracy'])} here), where {numbers['lenient']} give "
        f"{percent(numbers['lenient_accuracy'])}: these images do not say more."
    )


def _where(finding: Finding) -> str:
    return NEW.get(finding.numbers.get("unit", ""), f"with {finding.numbers['strict']}")


def _ends(finding: Finding) -> str:
    return f"{100 * finding.numbers['strict_low']:.0f} to {100 * finding.numbers['strict_high']:.0f}"
