"""Tables of the user's: columns are added, none of theirs is dropped; a sheet to fill in is never replaced."""

import csv
import json
import os
import re
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from ball_features import draw_smears
from ball_features.cli import app
from ball_features.dataset.grouping import read_groups
from ball_features.dataset.manifest import scan
from ball_features.dataset.sheet import read_sheet
from ball_features.dataset.sheet_formats import read_tables
from ball_features.dataset.table_files import extend_table, require_extendable, write_sheet
from ball_features.errors import DataError
from ball_features.files import escaped_controls

IMAGES = ("a/1.png", "a/2.png", "b/=3.png")
COLUMNS = {"group": [0, 0, 1], "series": ["s1", "s1", "-s2"]}


def rows_of(path, encoding="utf-8-sig", **options):
    with path.open(newline="", encoding=encoding) as file:
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
    written = "cp1252" if encoding == "cp1252" else "utf-8-sig"
    rows = rows_of(path, written, delimiter=separator)
    assert list(rows[0]) == ["Datei", "Patient", "group", "Färbung", "audit_group", "series"]
    assert [row["Datei"] for row in rows] == ["a\\2", "c/9.png", "1.png", "b/=3.png"]
    assert [row["group"] for row in rows] == ["mine", "", "", ""]
    assert [row["audit_group"] for row in rows] == ["0", "", "0", "1"]
    assert [row["Patient"] for row in rows] == ["P1", "P2", "P3", ""]
    extend_table(path, IMAGES, COLUMNS | {"audit_group": [7, 7, 8]})
    assert list(rows_of(path, written, delimiter=separator)[0]) == [
        "Datei",
        "Patient",
        "group",
        "Färbung",
        "audit_group",
        "series",
    ]


CELLS = [
    "a\rb",
    "a\nb",
    "a\r\nb",
    'say "x"',
    '"',
    "a,b;c\td|e",
    "  blanks ",
    "\ttab",
    "\r",
    "'=x",
    "=1+1",
    "e\u0301",
    "",
]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_cells_of_the_user_are_read_again_as_they_were(tmp_path, separator):
    path = tmp_path / "g.csv"
    names = [f"a/{number}.png" for number in range(len(CELLS))]
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(f"sep={separator}\n")
        rows = [("path", "note", "more"), *((name, cell, "x") for name, cell in zip(names, CELLS, strict=True))]
        csv.writer(file, delimiter=separator, quoting=csv.QUOTE_ALL).writerows(rows)
    before = [read_tables(path, as_is=as_is)[0] for as_is in (False, True)]
    assert [row[1] for row in before[1].rows[1:]] == CELLS
    for _ in range(2):
        extend_table(path, names, {"group": list(range(len(names)))})
        for as_is, old in zip((False, True), before, strict=True):
            new = read_tables(path, as_is=as_is)[0]
            assert [row[:3] for row in new.rows] == old.rows
            assert [row[3] for row in new.rows] == ["group", *map(str, range(len(names)))]
            assert (new.separator, new.above) == (separator, f"sep={separator}\n")


def test_a_row_that_is_wider_than_the_header_is_refused(tmp_path):
    path = tmp_path / "g.csv"
    content = b"path,note\na/1.png,ok,KEEP THIS CELL\na/2.png,ok\n"
    path.write_bytes(content)
    for call in (lambda: require_extendable(path, IMAGES), lambda: extend_table(path, IMAGES, COLUMNS)):
        with pytest.raises(DataError, match="line 2: 3 cells, expected 2"):
            call()
    assert path.read_bytes() == content
    path.write_bytes(content.replace(b"note", b"note,"))
    extend_table(path, IMAGES, COLUMNS)
    assert "KEEP THIS CELL" in path.read_text().splitlines()[1]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("shift-jis", "\u75c5\u9662\u30bd\u8868\u80fd\u529b\uff9e"),
        ("gbk", "\u533b\u9662\u768e\u507c\u60a3\u8005\u7f16\u53f7"),
        ("euc-kr", "\ubcd1\uc6d0 \ud658\uc790"),
        ("big5", "\u91ab\u9662\u529f\u8a31\u84cb"),
        ("cp1251", "\u0431\u043e\u043b\u044c\u043d\u0438\u0446\u0430"),
        ("cp1252", "F\xe4rbung \u20ac"),
        ("mac-roman", "F\xe4rbung gr\xfcn"),
    ],
)
def test_a_guessed_encoding_keeps_the_bytes_of_the_user(tmp_path, encoding, text):
    path = tmp_path / "g.csv"
    lines = [f"path,{text},note", f'a/1.png,{text},"{text}, x"', f"c/9.png,{text},"]
    path.write_bytes("\n".join(lines).encode(encoding))
    (remark,) = require_extendable(path, IMAGES)
    assert "g.csv is read as" in remark
    for _ in range(2):
        extend_table(path, IMAGES, COLUMNS)
        rows = rows_of(path, encoding)
        assert list(rows[0]) == ["path", text, "note", "group", "series"]
        assert [tuple(row.values()) for row in rows[:2]] == [
            ("a/1.png", text, f"{text}, x", "0", "s1"),
            ("c/9.png", text, "", "", ""),
        ]
        assert [row["path"] for row in rows[2:]] == ["a/2.png", "b/=3.png"]


@pytest.mark.parametrize("encoding", ["cp1252", "mac-roman", "shift-jis"])
@pytest.mark.parametrize("where", ["image", "class"])
def test_names_that_a_guessed_encoding_lacks_are_refused_before_the_work(tmp_path, encoding, where):
    path = tmp_path / "g.csv"
    text, lacks = ("\u75c5\u9662", "\xe9") if encoding == "shift-jis" else ("F\xe4rbung", "\u75c5")
    path.write_bytes(f"path,{text}\na/1.png,x\n".encode(encoding))
    content = path.read_bytes()
    images, values = ((*IMAGES, f"{lacks}/1.png"), ()) if where == "image" else (IMAGES, (lacks,))
    with pytest.raises(DataError, match=r"in the encoding (cp1252|latin-1|mac-roman|cp932), .*Save it as UTF-8"):
        require_extendable(path, images, values)
    if where == "image":
        with pytest.raises(DataError, match="Save it as UTF-8"):
            extend_table(path, images, {"group": [1, 2, 3, 4]})
    else:
        extend_table(path, IMAGES, COLUMNS | {"series": [lacks] * 3})
        assert lacks.encode("ascii", "backslashreplace") in path.read_bytes()
        return
    assert path.read_bytes() == content


ODD = ["a/x\x1b[31m.png", "a/y\x07.png", "b\x1b/z.png", "b\x1b/\u202ew\n.png", "b\x1b/plain.png"]


def test_names_with_control_characters_are_escaped_in_a_sheet_and_found_again(tmp_path):
    for number, name in enumerate(ODD):
        path = tmp_path / "wrap" / "d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    for folder in (tmp_path / "wrap" / "d", tmp_path / "wrap"):
        out = tmp_path / f"{folder.name}.csv"
        assert write_sheet(folder, out).rows == len(ODD)
        assert escaped_controls(out.read_text(encoding="utf-8"), kept="\n") == out.read_text(encoding="utf-8")
        assert {row["label"] for row in rows_of(out)} == {"a", "b\\x1b"}
        filled = out.read_text(encoding="utf-8").replace(",a,", ",A,").replace(",b\\x1b,", ",B,")
        (tmp_path / "filled.csv").write_text(filled, encoding="utf-8")
        for sheet, labels in ((out, ["a", "a", *["b\\x1b"] * 3]), (tmp_path / "filled.csv", ["A", "A", *"BBB"])):
            found = scan(folder, sheet=sheet)
            assert sorted(found.label) == labels and len(found.path) == len(ODD)
            assert not re.search("no row|no image|another", found.note)
        extend_table(tmp_path / "g.csv", found.path, {"group": list(range(len(ODD)))})
        extend_table(tmp_path / "g.csv", found.path, {"group": list(range(len(ODD)))})
        text = (tmp_path / "g.csv").read_text(encoding="utf-8")
        assert text == escaped_controls(text, kept="\n") and len(text.splitlines()) == len(ODD) + 1
        assert read_groups(tmp_path / "g.csv", "group", found.path).tolist() == [str(n) for n in range(len(ODD))]


@pytest.mark.slow
def test_an_audit_says_how_it_read_the_table_and_refuses_before_the_work(tmp_path):
    draw_smears(tmp_path / "d", per_class=2, seed=1)
    names = sorted(path.relative_to(tmp_path / "d").as_posix() for path in (tmp_path / "d").rglob("*.jpg"))
    text = "\u75c5\u9662\u8868".encode("shift-jis")
    table = b"\n".join([b"path,note", *(name.encode() + b"," + text for name in names)]) + b"\n"
    (tmp_path / "g.csv").write_bytes(table)
    done = CliRunner().invoke(app, ["audit", str(tmp_path / "d"), "--out", str(tmp_path / "g.csv")])
    assert done.exit_code == 0 and "g.csv is read as" in done.output, done.output
    assert (tmp_path / "g.csv").read_bytes().count(text) == len(names)
    (tmp_path / "g.csv").write_bytes(table)
    (tmp_path / "d" / names[0]).rename(tmp_path / "d" / names[0].replace(".jpg", "\xe9.jpg"))
    done = CliRunner().invoke(app, ["audit", str(tmp_path / "d"), "--out", str(tmp_path / "g.csv")])
    assert done.exit_code and "Save it as UTF-8" in f"{done.output} {done.exception}"
    assert "Auditing" not in done.output and (tmp_path / "g.csv").read_bytes() == table


def test_names_that_no_table_can_hold_are_left_out_of_a_sheet_and_named(tmp_path):
    names = ["1.png", "x\x1b.png", "x\\x1b.png"]
    try:
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "a\udcff.png").write_bytes(b"x")
        names.append("a\udcff.png")
    except (OSError, UnicodeError):
        pass
    for name in names:
        (tmp_path / "d" / name).write_bytes(name.encode("utf-8", "surrogateescape"))
    written = write_sheet(tmp_path / "d", tmp_path / "s.csv")
    assert [row["path"] for row in rows_of(tmp_path / "s.csv")] == ["1.png", "x\\x1b.png"]
    assert any(f"{len(names) - 2} image" in remark and "left out" in remark for remark in written.remarks)


@pytest.mark.parametrize("flag", ["-q", "--json"])
def test_folders_that_cannot_be_read_have_no_row_and_are_named(tmp_path, monkeypatch, flag):
    for name in ("Early", "Pre", "Pro"):
        (tmp_path / "d" / name).mkdir(parents=True)
        (tmp_path / "d" / name / "1.png").touch()
    (tmp_path / "d" / "Pre" / "slide.svs").touch()
    scan = os.scandir

    def refusing(place="."):
        if Path(os.fsdecode(place)).name == "Pro":
            raise PermissionError(13, "Permission denied", str(place))
        return scan(place)

    monkeypatch.setattr(os, "scandir", refusing)
    done = CliRunner().invoke(app, ["sheet", str(tmp_path / "d"), "--out", str(tmp_path / "s.csv"), flag])
    assert done.exit_code == 0, done.output
    assert [row["path"] for row in rows_of(tmp_path / "s.csv")] == ["Early/1.png", "Pre/1.png"]
    told = {item["path"] for item in json.loads(done.stdout)["rejected"]} if flag == "--json" else done.stderr
    assert all(name in told for name in ("Pro", "Pre/slide.svs"))


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


def test_a_former_division_that_is_replaced_is_kept(tmp_path):
    """Numbers that are renamed and images that are added lose nothing; images that somebody has joined would be."""
    path = tmp_path / "g.csv"
    assert not extend_table(path, IMAGES, COLUMNS)
    assert not extend_table(path, IMAGES, {"group": [4, 4, 2], "series": ["x", "x", "-y"]})
    assert not extend_table(path, (*IMAGES, "c.png"), {"group": [4, 4, 2, 4], "series": ["x", "x", "-y", "z"]})
    path.write_text(path.read_text().replace("b/=3.png,2", "b/=3.png,4"))
    own = path.read_bytes()
    said = extend_table(path, (*IMAGES, "c.png"), {"group": [4, 4, 2, 4], "series": ["x", "x", "-y", "z"]})
    assert said == f"{path} had other values in group: the table as it was is kept as {tmp_path / 'g-2.csv'}."
    assert (tmp_path / "g-2.csv").read_bytes() == own and b"b/=3.png,2" in path.read_bytes()
    path.write_bytes(own)
    extend_table(path, (*IMAGES, "c.png"), {"group": [1, 2, 3, 4], "series": ["x", "x", "-y", "z"]})
    assert (tmp_path / "g-3.csv").read_bytes() == own


@pytest.mark.slow
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
