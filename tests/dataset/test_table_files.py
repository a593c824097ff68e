"""Tables of the user's: columns are added, none of theirs is dropped; a sheet to fill in is never replaced."""

import csv

import pytest

from ball_features.dataset.grouping import read_groups
from ball_features.dataset.sheet import read_sheet
from ball_features.dataset.table_files import extend_table, require_extendable, write_sheet
from ball_features.errors import DataError

IMAGES = ("a/1.png", "a/2.png", "b/=3.png")
COLUMNS = {"group": [0, 0, 1], "series": ["s1", "s1", "-s2"]}


def rows_of(path, **options):
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file, **options))


def test_a_new_table(tmp_path):
    extend_table(tmp_path / "g.csv", IMAGES, COLUMNS)
    assert (tmp_path / "g.csv").read_text() == "path,group,series\na/1.png,0,s1\na/2.png,0,s1\nb/=3.png,1,'-s2\n"
    assert read_groups(tmp_path / "g.csv", "series", IMAGES).tolist() == ["s1", "s1", "-s2"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_columns_and_rows_of_the_user_are_kept(tmp_path, separator, encoding):
    path = tmp_path / "g.csv"
    lines = [
        ("Datei", "Patient", "group", "Färbung"),
        ("a\\2", "P1", "mine", "x"),
        ("c/9.png", "P2", "", '"q"'),
        ("1.png", "P3", "", ""),
    ]
    path.write_bytes("\n".join(separator.join(line) for line in lines).replace('"q"', "q").encode(encoding))
    extend_table(path, IMAGES, COLUMNS)
    rows = rows_of(path, delimiter=separator)
    assert list(rows[0]) == ["Datei", "Patient", "group", "Färbung", "audit_group", "series"]
    assert [row["Datei"] for row in rows] == ["a\\2", "c/9.png", "1.png", "b/=3.png"]
    assert [row["group"] for row in rows] == ["mine", "", "", ""]
    assert [row["audit_group"] for row in rows] == ["0", "", "0", "1"]
    assert [row["Patient"] for row in rows] == ["P1", "P2", "P3", ""]
    extend_table(path, IMAGES, COLUMNS | {"audit_group": [7, 7, 8]})
    assert list(rows_of(path, delimiter=separator)[0]) == [
        "Datei",
        "Patient",
        "group",
        "Färbung",
        "audit_group",
        "series",
    ]


def test_its_own_columns_are_brought_up_to_date(tmp_path):
    path = tmp_path / "g.csv"
    extend_table(path, IMAGES, COLUMNS)
    path.write_text(
        path.read_text().replace("series\n", "series,note\n").replace("s1\n", "s1,kept\n").replace("'-s2\n", "x,\n")
    )
    extend_table(path, IMAGES, COLUMNS)
    rows = rows_of(path)
    assert [row["note"] for row in rows] == ["kept", "kept", ""]
    assert [row["series"] for row in rows] == ["s1", "s1", "'-s2"]


@pytest.mark.parametrize(
    "content",
    [
        b"\x89HDF\r\n\x1a\nabc",
        b"my notes\n",
        b"path,label\nother/1.png,a\n",
        b"<!doctype html>",
        b"PAR1abc",
        b"\xff\xd8\xff\xe0",
    ],
)
def test_other_files_are_not_touched(tmp_path, content):
    path = tmp_path / "g.csv"
    path.write_bytes(content)
    for call in (lambda: require_extendable(path, IMAGES), lambda: extend_table(path, IMAGES, COLUMNS)):
        with pytest.raises(DataError, match="no table of these images"):
            call()
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("names", "label", "columns"),
    [
        (["1.png", "2.png"], ["", ""], {}),
        (["a/1.png", "b/2.png"], ["a", "b"], {}),
        (
            ["train/a/1.png", "train/b/1.png", "test/a/2.png", "test/b/3.png"],
            ["a", "b", "a", "b"],
            {"split": "test test train train"},
        ),
        (["x/a/1.png", "x/b/1.png", "y/a/2.png", "y/b/3.png"], ["", "", "", ""], {}),
    ],
)
def test_a_sheet_to_fill_in(tmp_path, names, label, columns):
    for name in names:
        path = tmp_path / "d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    written = write_sheet(tmp_path / "d", tmp_path / "s.csv")
    assert written.rows == len(names)
    rows = rows_of(tmp_path / "s.csv")
    assert list(rows[0]) == ["path", "label", "patient", "site", "split", "group"]
    assert [row["label"] for row in rows] == label
    for name, values in columns.items():
        assert [row[name] for row in rows] == values.split()
    assert not any(read_sheet(tmp_path / "s.csv").rows_of(sorted(names)).remarks)
    with pytest.raises(DataError, match="is not replaced"):
        write_sheet(tmp_path / "d", tmp_path / "s.csv")


def test_a_folder_without_images(tmp_path):
    with pytest.raises(DataError, match="Found no image"):
        write_sheet(tmp_path, tmp_path / "s.csv")
    with pytest.raises(DataError, match="Found nothing"):
        write_sheet(tmp_path / "no", tmp_path / "s.csv")
