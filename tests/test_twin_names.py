"""Files of a folder whose names differ by the form of Unicode, or by case, alone: no table takes one for another."""

import csv
import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ball_features.cache import read_cache
from ball_features.cli import app
from ball_features.config import CollectionConfig
from ball_features.dataset.grouping import read_groups
from ball_features.dataset.manifest import scan
from ball_features.dataset.matching import match_rows
from ball_features.dataset.sheet import read_sheet
from ball_features.dataset.synthetic import draw_smears
from ball_features.dataset.table_files import extend_table
from ball_features.dataset.twins import with_twins
from ball_features.files import read_csv

NFC, NFD = "Jos\u00e9.jpg", "Jose\u0301.jpg"
UPPER, LOWER = "AB.jpg", "Ab.jpg"
TWINS = (NFC, NFD, UPPER, LOWER)
CLASSES = ("Benign", "Pro", "Pro", "Benign")  # so that a twin in place of another is seen by its class


@pytest.fixture(scope="module")
def flat(tmp_path_factory) -> Path:
    """A folder without classes, in which two names are there in two forms each."""
    folder = tmp_path_factory.mktemp("twins")
    draw_smears(folder / "drawn", per_class=12, seed=1, size_px=64)
    (folder / "images").mkdir()
    for name, own in zip(TWINS, CLASSES, strict=True):
        next(iter(sorted((folder / "drawn" / own).iterdir()))).rename(folder / "images" / name)
    for own in ("Benign", "Pro"):
        for path in sorted((folder / "drawn" / own).iterdir()):
            path.rename(folder / "images" / path.name)
    if len({path.name for path in (folder / "images").iterdir()}) < 24:
        pytest.skip("this disk takes no such names")
    return folder / "images"


def rows_of(flat):
    """(path, label, patient, split, site) of each image; twins differ in all of them."""
    own = dict(zip(TWINS, CLASSES, strict=True))
    names = sorted(path.name for path in flat.iterdir())
    parts = {NFC: "train", NFD: "test", UPPER: "test", LOWER: "train"}
    return [
        (
            name,
            own.get(name) or name.split("-")[1],
            f"P{number}",
            parts.get(name) or ("test" if number % 3 == 0 else "train"),
            f"S{number % 2}",
        )
        for number, name in enumerate(names)
    ]


HEADER = ("path", "label", "patient", "split", "site")


def write(path: Path, rows, header=HEADER) -> Path:
    """A sheet, in the format that its ending names."""
    if path.suffix == ".json":
        path.write_text(json.dumps([dict(zip(header, row, strict=True)) for row in rows], ensure_ascii=False), "utf-8")
    elif path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        columns = zip(*rows, strict=True)
        parquet.write_table(pyarrow.table(dict(zip(header, map(list, columns), strict=True))), path)
    else:
        with path.open("w", newline="", encoding="utf-16" if path.suffix == ".tsv" else "utf-8") as file:
            csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows([header, *rows])
    return path


def run_command(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, (words, done.output, done.exception)
    return " ".join(done.output.split())


def by_path(table):
    """Rows of a table by the name of the file."""
    return {row["path"].rpartition("/")[2]: row for row in read_csv(table)}


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".json", ".parquet"])
def test_a_sheet_gives_each_twin_its_own_row(flat, tmp_path, ending):
    """Whatever the order of rows and files; also by names with a folder above, and by stems."""
    rows = rows_of(flat)
    for names in ([row[0] for row in rows], [row[0] for row in rows[::-1]]):
        for write_name in (str, lambda name: f"images/{name}", lambda name: name.removesuffix(".jpg")):
            given = [(write_name(name), *rest) for name, *rest in rows]
            found = read_sheet(write(tmp_path / f"sheet{ending}", given), CollectionConfig()).rows_of(names)
            for column, place in (("label", 1), ("patient", 2), ("split", 3), ("site", 4)):
                expected = {row[0]: row[place] for row in rows}
                assert found.columns[column] == tuple(expected[name] for name in names)
            assert not found.remarks


def test_a_name_in_another_form_is_matched_where_it_has_no_twin():
    for file in (NFC, NFD, "x/" + NFD, "JOSE\u0301.JPG"):
        for cell in (NFC, NFD, "jos\u00e9", "Y/" + NFC.upper() if "/" not in file else NFC.upper()):
            assert match_rows([cell], [file, "other.jpg"]).rows == ((0,), ())


@pytest.mark.parametrize(
    ("cell", "files"),
    [
        ("JOS\u00c9.jpg", (NFC, NFD)),
        ("JOSE\u0301.jpg", (NFC, NFD)),
        ("jos\u00e9.png", (NFC, NFD)),
        ("aB.jpg", (UPPER, LOWER)),
        ("ab", (UPPER, LOWER)),
    ],
)
def test_a_name_that_may_be_either_twin_is_refused_with_both_visible(tmp_path, cell, files):
    others = ["one.jpg", "two.jpg"]
    sheet = read_sheet(
        write(tmp_path / "s.csv", [(cell, "Pro"), ("one.jpg", "Benign")], HEADER[:2]), CollectionConfig()
    )
    found = sheet.rows_of([*files, *others])
    assert found.columns["label"] == ("", "", "Benign", "")
    said = " ".join(found.remarks)
    shown = [ascii(name) if not name.isascii() else name for name in files]
    assert f"1 row of {sheet.source} matches several images, and none is taken: {cell} in line 2 " in said
    assert f"({', '.join(shown)})" in said
    assert f"3 images have no row in {sheet.source}: {', '.join(shown)}, two.jpg" in said


@pytest.mark.parametrize(("one", "other"), [(NFC, NFD), (UPPER, LOWER)])
def test_a_twin_without_a_row_gets_none_of_the_other(tmp_path, one, other):
    for named in (one, other):
        sheet = read_sheet(
            write(tmp_path / "s.csv", [(named, "Pro"), ("x.jpg", "Benign")], HEADER[:2]), CollectionConfig()
        )
        found = sheet.rows_of([one, other, "x.jpg"])
        assert found.columns["label"] == ("Pro" if named == one else "", "Pro" if named == other else "", "Benign")
        lacking = other if named == one else one
        assert (ascii(lacking) if not lacking.isascii() else lacking) in " ".join(found.remarks)


def test_two_rows_of_one_file_that_differ_are_refused(tmp_path):
    """A sheet of a disk that holds both twins, beside a folder that holds one."""
    from ball_features.errors import DataError

    for one, other in ((NFC, NFD), (UPPER, LOWER)):
        sheet = write(tmp_path / "s.csv", [(one, "Pro"), (other, "Benign")], HEADER[:2])
        with pytest.raises(DataError, match="twice, in lines 2 and 3, with label 'Pro' and 'Benign'"):
            read_sheet(sheet, CollectionConfig()).rows_of([one, "x.jpg"])


def test_a_table_that_is_extended_gives_each_twin_its_own_cells(flat, tmp_path):
    rows = rows_of(flat)
    names = [row[0] for row in rows]
    for order in (rows, rows[::-1]):
        table = write(tmp_path / "groups.csv", [(row[0], row[2]) for row in order], ("path", "mine"))
        extend_table(table, names, {"group": [f"g{number}" for number in range(len(names))]})
        found = [tuple(row[name] for name in ("path", "mine", "group")) for row in read_csv(table)]
        assert found == [(row[0], row[2], f"g{names.index(row[0])}") for row in order]
        for column, expected in (("group", range(len(names))), ("mine", None)):
            read = read_groups(table, column, names).tolist()
            assert read == ([f"g{n}" for n in expected] if expected else [row[2] for row in rows])


@pytest.mark.slow
def test_every_command_keeps_twins_apart(flat, tmp_path, tiny_densenet):
    rows = rows_of(flat)
    sheet, cache = write(tmp_path / "sheet.csv", rows), tmp_path / "a.h5"
    small = ("--backbone", tiny_densenet, "--weights", "random", "--input-px", "32", "--precision", "fp32")
    said = run_command("extract", flat, "--sheet", sheet, "--out", cache, "--views", "1", *small)
    assert f"{NFD!a} and {NFC!a}" in said
    made = read_cache(cache)
    expected = {hashlib.sha256((flat / row[0]).read_bytes()).hexdigest(): row for row in rows}
    for number, digest in enumerate(made.sha256.tolist()):
        columns = (made.columns[name][number] for name in HEADER[2:])
        assert (made.path[number], made.label[number], *columns) == expected[digest]
    # An audit adds its columns to a table of the user's, by which images are then divided.
    groups = write(tmp_path / "groups.csv", [(row[0], row[2], row[3]) for row in rows], ("path", "mine", "split"))
    classed = tmp_path / "classed"
    for name, label, *_ in rows:
        (classed / label).mkdir(parents=True, exist_ok=True)
        (classed / label / name).write_bytes((flat / name).read_bytes())
    run_command("audit", classed, "--out", groups)
    kept = by_path(groups)
    assert [(kept[row[0]]["mine"], kept[row[0]]["split"]) for row in rows] == [(row[2], row[3]) for row in rows]
    assert all(kept[row[0]]["series"].startswith(f"{row[1]}/") for row in rows)
    one = ("--models", "logistic", "--jobs", "1")
    given = ("--groups", groups, "--protocol", "given", "--name", "given", "--save", "logistic", "--repeats", "1")
    run_command("fit", cache, *one, *given, "--out", tmp_path / "runs")
    splits = by_path(tmp_path / "runs/given/splits.csv")
    assert [row[0] in splits and "test" in splits[row[0]].values() for row in rows] == [
        row[3] == "test" for row in rows
    ]
    predicted = by_path(tmp_path / "runs/given/predictions.csv")
    assert {name for name in TWINS if name in predicted} == {NFD, UPPER}
    assert all(predicted[row[0]]["label"] == row[1] for row in rows if row[3] == "test")
    bundle = tmp_path / "runs/given/models/logistic"
    run_command("evaluate", bundle, flat, "--sheet", sheet, "--out", tmp_path / "elsewhere", "--recalibrate", "0")
    found = by_path(tmp_path / "elsewhere/predictions.csv")
    assert [(found[row[0]]["label"], found[row[0]]["patient"]) for row in rows] == [(row[1], row[2]) for row in rows]
    run_command("predict", bundle, flat, "--sheet", sheet, "--out", tmp_path / "p.csv")
    assert len(by_path(tmp_path / "p.csv")) == len(rows)
    assert {row["patient"] for row in read_csv(tmp_path / "p.patients.csv")} == {row[2] for row in rows}
    run_command("labels", cache, *one, "--folds", "2", "--out", tmp_path / "labels.csv")
    listed = by_path(tmp_path / "labels.csv")
    assert [listed[row[0]]["label"] for row in rows] == [row[1] for row in rows]


def test_the_collection_says_that_it_has_twins(flat):
    sheet = dict(zip(HEADER, map(list, zip(*rows_of(flat), strict=True)), strict=True))
    assert f"{NFD!a} and {NFC!a}" in scan(flat, sheet=sheet).note


@pytest.mark.parametrize(
    ("images", "segmented", "found"),
    [
        (["A/x.jpg", "A/y.jpg"], ["A/x.png", "A/y.png"], ["A/x.png", "A/y.png"]),
        (["A/x.jpg", "A/x.png"], ["A/x.png"], ["", "A/x.png"]),
        (["A/x.jpg", "A/x.png"], ["A/x.png", "A/x.jpg"], ["A/x.jpg", "A/x.png"]),
        (["A/x.jpg", "A/x.tif"], ["A/x.png"], ["", ""]),
        (["A/x.jpg", "A/y.jpg"], ["A/x.png", "A/x.bmp", "A/y.png"], ["", "A/y.png"]),
        (["A/" + NFD], ["A/" + NFC.replace("jpg", "png")], ["A/" + NFC.replace("jpg", "png")]),
        (
            ["A/" + NFC, "A/" + NFD],
            [f"A/{name[:-3]}png" for name in (NFD, NFC)],
            [f"A/{n[:-3]}png" for n in (NFC, NFD)],
        ),
        (["A/" + NFC, "A/" + NFD], ["A/" + NFC], ["A/" + NFC, ""]),
        (["A/x.jpg"], ["B/x.png"], [""]),
    ],
)
def test_no_segmented_twin_serves_two_images(smears, tmp_path, images, segmented, found):
    picture = next(iter(sorted(smears.rglob("*.jpg")))).read_bytes()
    for name in (*(f"images/{own}" for own in images), *(f"Segmented/{own}" for own in segmented)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture)
    others = ["y/1.jpg", "z/2.jpg"]
    for name in (f"{folder}/{own}" for own in others for folder in ("images", "Segmented")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture)
    made = with_twins(scan(tmp_path / "images", least_classes=0), tmp_path / "Segmented")
    kept = {
        path: twin.relative_to(tmp_path / "Segmented").as_posix()
        for path, twin in zip(made.path, made.twin, strict=True)
    }
    assert kept == {name: own for name, own in zip([*images, *others], [*found, *others], strict=True) if own}
    reasons = {item.path: item.reason for item in made.rejected}
    assert set(reasons) == {name for name, own in zip(images, found, strict=True) if not own}
    assert all("segmented twin" in reason for reason in reasons.values())
