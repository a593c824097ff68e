"""What the figures mean: a pure function from the results at hand to a short ordered list of findings.

`verdict(evidence)` reads records that runs, audits and evaluations fill; it reads no file and computes no statistic of
its own. Every finding has the numbers that it rests on, one plain sentence, and the command to run next. What was not
tested is said too, so that silence is never mistaken for a result. `docs/verdict.md` explains each code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ball_features.errors import DataError
from ball_features.files import read_json
from ball_features.reporting.evidence import DataEvidence, Evidence
from ball_features.reporting.finding import SEVERITIES, Finding
from ball_features.reporting.headline import beyond_headline, headline
from ball_features.reporting.rules_external import external
from ball_features.reporting.rules_images import (
    audit_copies,
    chosen_here,
    doubtful_labels,
    label_conflicts,
    leaks,
    overlay_tells_class,
    precision_deviates,
    random_weights,
    seen_in_training,
    site_adapted,
)
from ball_features.reporting.rules_limits import (
    calibration,
    class_of_few_patients,
    many_equals,
    site_tells_class,
    too_few,
)
from ball_features.reporting.rules_scores import falls, nothing_learnt, share_of_majority, shortcuts
from ball_features.reporting.rules_use import predictions

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["RULES", "findings_to_json", "read_findings", "render_verdict", "verdict"]

Rule = Callable[[Evidence], Iterable[Finding]]

SHOWN = 3  # findings on a terminal

RULES: tuple[Rule, ...] = (
    seen_in_training,
    leaks,
    nothing_learnt,
    falls,
    shortcuts,
    audit_copies,
    external,
    predictions,
    overlay_tells_class,
    site_tells_class,
    class_of_few_patients,
    chosen_here,
    label_conflicts,
    doubtful_labels,
    random_weights,
    too_few,
    precision_deviates,
    calibration,
    many_equals,
    site_adapted,
)


def verdict(evidence: Evidence) -> list[Finding]:
    """Findings that follow from the evidence, the most serious first; within a severity in the order of the rules.

    Args:
        evidence: results at hand.

    Returns:
        At least one finding: what was not tested, or that nothing was found.
    """
    found = [finding for rule in RULES for finding in rule(evidence)]
    found.sort(key=lambda finding: SEVERITIES.index(finding.severity))  # stable
    return [*found, *closing(evidence, found)]


def closing(evidence: Evidence, found: Sequence[Finding]) -> list[Finding]:
    """Say what was tested and what was not, or that nothing was found."""
    if not evidence.protocols:
        return [] if found else [Finding("nothing-found", "good", {}, "Nothing unusual was found.")]
    units = {protocol.unit for protocol in evidence.protocols}
    data = evidence.data
    missing = []
    if evidence.audit is None and "group" not in units:
        missing.append("copies and overlapping fields")
    if "patient" not in units:
        missing.append("new patients" + _why_not(data, "patient", data is not None and data.patients is None))
    if "site" not in units and evidence.external is None:
        missing.append("other hospitals" + _why_not(data, "site", data is not None and data.sites is None))
    names = [own.name + (" (there are none)" if own.keeps_nothing_together else "") for own in evidence.protocols]
    numbers: dict[str, object] = {"not_tested": missing, "tested": names}
    best = evidence.protocols[0].network
    if best is not None:
        numbers |= {"lenient": names[0], "accuracy": best.accuracy, "low": best.low, "high": best.high}
        numbers |= {"guessing": share_of_majority(evidence.protocols[0])}
    if any(finding.severity in ("serious", "warning") for finding in found):
        if not missing:
            return []
        return [Finding("not-tested", "note", numbers, f"Not tested: {'; '.join(missing)}.")]
    tested = [*names, *(["copies, overlapping fields and scale bars"] if evidence.audit else [])]
    sentence = f"Nothing was found that makes this score misleading. Tested: {'; '.join(tested)}."
    if missing:
        sentence += f" Not tested: {'; '.join(missing)}."
    return [Finding("nothing-found", "good", numbers, sentence)]


_UNTESTABLE = {
    "patient": "a class has too few of them",
    "site": "none can be left out without leaving too few images of a class",
}


def _why_not(data: DataEvidence | None, unit: str, unnamed: bool) -> str:
    """Say why a protocol was not run; "" where it could have been."""
    if data is not None and unit in data.untestable:
        return f" ({_UNTESTABLE[unit]})"
    return " (the data do not name them)" if unnamed else ""


def findings_to_json(findings: Sequence[Finding]) -> list[dict[str, object]]:
    """Findings as plain values, the content of `verdict.json`."""
    return [{**asdict(finding), "numbers": dict(finding.numbers)} for finding in findings]


def read_findings(folder: Path) -> list[Finding]:
    """Read `verdict.json` of a run; empty where there is none.

    Raises:
        DataError: The file is damaged.
    """
    file = folder / "verdict.json"
    if not file.exists():
        return []
    try:
        found = [Finding(**item) for item in read_json(file)]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{file} is damaged ({error}). Delete it, or run the command again.") from error
    unknown = [finding.severity for finding in found if finding.severity not in SEVERITIES]
    if unknown:
        raise DataError(f"{file} has the severity {unknown[0]!r}, expected one of: {', '.join(SEVERITIES)}.")
    return found


def render_verdict(findings: Sequence[Finding], most: int = SHOWN) -> RenderableType:
    """What the score is worth, the first findings for a terminal, a line each, and the first command to run next.

    Args:
        findings: from `verdict`.
        most: number of findings to show.
    """
    from rich.text import Text

    style = {"serious": "bold red", "warning": "bold yellow", "note": "bold", "good": "bold green"}
    text = Text()
    if said := headline(findings):
        text.append(said + "\n", style="bold")
    findings = beyond_headline(findings)
    for finding in findings[:most]:
        text.append(f"{finding.severity.capitalize()}: ", style=style[finding.severity])
        text.append(finding.sentence + "\n")
    command = next((finding.next for finding in findings[:most] if finding.next), "")
    if command:
        text.append("Next: ", style="dim")
        text.append(command + "\n")
    if len(findings) > most:
        text.append(f"{len(findings) - most} more findings in verdict.json and on the page.\n", style="dim")
    text.rstrip()
    return text
