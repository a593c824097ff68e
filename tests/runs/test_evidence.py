"""What a verdict rests on follows from the run: patients, sites and leaks of a given split."""

import pytest

from ball_features import ExtractConfig, FitConfig, extract, fit, read_cache
from ball_features.config.paths import shareable
from tests.made import clouds, write_cache

MODELS = ("logistic", "majority", "colour")


def sheet_of(cache, patient, split):
    rows = zip(cache.path, patient, split, strict=True)
    return "path,patient,split\n" + "".join(f"{path},{own},{part}\n" for path, own, part in rows)


@pytest.fixture
def columns(small_cache, tmp_path):
    """A groups file in which patients have three images each, of one class, and three of four patients train."""
    cache = read_cache(small_cache)
    number = [row // 3 for row in range(len(cache.path))]
    parts = ["test" if patient % 4 == 3 else "train" for patient in number]
    return cache, number, parts


def fitted(small_cache, tmp_path, text, **settings):
    table = tmp_path / "sheet.csv"
    table.write_text(text, encoding="utf-8")
    config = FitConfig(models=MODELS, repeats=1, groups=str(table), jobs=1, **settings)
    return {finding.code: finding for finding in fit(small_cache, config, out_root=tmp_path).findings}


def not_tested(findings):
    return " ".join((findings.get("not-tested") or findings["nothing-found"]).numbers["not_tested"])


@pytest.mark.slow
def test_a_leak_of_a_given_split_is_counted(small_cache, tmp_path, columns):
    cache, patient, parts = columns
    findings = fitted(small_cache, tmp_path, sheet_of(cache, patient, parts), protocol="given")
    assert "given-split-leaks" not in findings
    leaking = list(parts)
    leaking[parts.index("test")] = "train"  # one image of a patient who is tested
    findings = fitted(small_cache, tmp_path, sheet_of(cache, patient, leaking), protocol="given")
    assert findings["given-split-leaks"].severity == "serious"
    assert findings["given-split-leaks"].numbers["patients"] == 2


@pytest.mark.slow
def test_patients_kept_whole_are_said_to_be_tested(small_cache, tmp_path, columns):
    cache, patient, parts = columns
    findings = fitted(small_cache, tmp_path, sheet_of(cache, patient, parts))
    assert "new patients" not in not_tested(findings)
    findings = fitted(small_cache, tmp_path, sheet_of(cache, patient, parts), protocol="given")
    assert "new patients" in not_tested(findings)
    assert "new patients (the data do not name them)" not in not_tested(findings)


@pytest.mark.slow
def test_columns_of_the_cache_count(smears, tmp_path, tiny_densenet):
    """Patients that only the sheet of the extraction names."""
    from ball_features.dataset.manifest import scan

    paths = scan(smears).path
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("path,patient\n" + "".join(f"{path},{row // 3}\n" for row, path in enumerate(paths)))
    cache = tmp_path / "c.h5"
    extract(smears, cache, ExtractConfig(tiny_densenet, weights="random", input_px=64), sheet=sheet)
    run = fit(cache, FitConfig(models=MODELS, repeats=1, jobs=1), out_root=tmp_path)
    assert "new patients" not in not_tested({finding.code: finding for finding in run.findings})


@pytest.mark.slow
def test_labels_that_all_models_contradict_are_named(tmp_path):
    numbers, label = clouds(40, distance=9.0)
    label[5] = "Pro"
    run = fit(
        write_cache(tmp_path / "own.h5", numbers, label),
        FitConfig(protocol="cv", models=("logistic", "lda"), repeats=1),
        out_root=tmp_path,
    )
    (finding,) = [own for own in run.findings if own.code == "labels-doubtful"]
    assert finding.numbers == {"images": 1}
    assert "Pro/00005.png, labelled Pro, answered Benign" in finding.sentence
    assert finding.next == f"ball labels {shareable(tmp_path / 'own.h5')} --out labels.csv"
