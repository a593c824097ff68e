"""Sheets: any separator, encoding, header and spelling of paths is read as it is meant, or refused with the reason."""

import datetime
import sys
import unicodedata
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ball_features.config import CollectionConfig
from ball_features.dataset.group_table import table_of_file
from ball_features.dataset.matching import match_rows
from ball_features.dataset.sheet import read_sheet
from ball_features.dataset.sheet_columns import split_value
from ball_features.errors import DataError

FILES = [f"{name}/{number}.jpg" for name in ("Benign", "Früh", "Pre, late") for number in range(4)]
HEADER = ("image", "diagnosis", "patient", "scanner", "split", "note")
ROWS = [
    (path, path.split("/")[0], f"0{number % 5}", "A;B", ("train", "Validierung", "TEST")[number % 3], 'say "hi"')
    for number, path in enumerate(FILES)
]


def delimited(separator, rows=ROWS, header=HEADER, line="\n"):
    def cell(text):
        quoted = any(mark in text for mark in (separator, '"', "\n"))
        return '"' + text.replace('"', '""') + '"' if quoted else text

    return line.join(separator.join(map(cell, row)) for row in (header, *rows)) + line


def read_table(*arguments) -> Any:
    """A sheet of one table."""
    return read_sheet(*arguments)


def write(tmp_path, data, name="sheet.csv"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"]
)
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line", ["\n", "\r\n"])
def test_separators_and_encodings(tmp_path, encoding, separator, line):
    path = write(tmp_path, delimited(separator, line=line).encode(encoding))
    sheet = read_sheet(path)
    rows = sheet.rows_of(FILES)
    assert rows.columns["label"] == tuple(row[1] for row in ROWS)
    assert rows.columns["patient"] == tuple(row[2] for row in ROWS)
    assert rows.columns["site"] == ("A;B",) * 12
    assert rows.columns["split"] == ("train", "val", "test") * 4
    assert rows.columns["note"] == ('say "hi"',) * 12
    assert rows.remarks == ()
    assert sheet.headings["site"] == "scanner"
    assert bool(sheet.remarks) == (encoding not in ("utf-8", "utf-8-sig"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["xlsx", "parquet", "pandas", "mapping", "arrow", "index"])
def test_spreadsheets_and_frames(tmp_path, kind):
    import pandas as pd

    columns = {
        "Bild": FILES,
        "Diagnose": [path.split("/")[0] for path in FILES],
        "Patienten-ID": [float(number % 4) for number in range(11)] + [float("nan")],
        "day": [datetime.date(2024, 1, 2)] * 12,
        "count": list(range(12)),
        "dark": [None, True] * 6,
    }
    frame = pd.DataFrame(columns)
    if kind == "xlsx":
        pytest.importorskip("openpyxl")
        sheet = tmp_path / "s.xlsx"
        with pd.ExcelWriter(sheet) as writer:
            pd.DataFrame({"legend": ["nothing"]}).to_excel(writer, sheet_name="About", index=False)
            frame.to_excel(writer, sheet_name="Images", index=False, startrow=2)
    elif kind == "parquet":
        sheet = tmp_path / "s.parquet"
        frame.assign(vector=[[1.0, 2.0]] * 12).to_parquet(sheet)
    else:
        import pyarrow as pa

        sheet = {"pandas": frame, "mapping": columns, "arrow": pa.table(columns), "index": frame.set_index("Bild")}[
            kind
        ]
    rows = read_sheet(sheet).rows_of(FILES)
    assert rows.columns["patient"] == (*(str(number % 4) for number in range(11)), "")
    assert rows.columns["label"] == tuple(columns["Diagnose"])
    assert set(rows.columns["day"]) == {"2024-01-02"}
    assert rows.columns["count"][11] == "11"
    assert rows.columns["dark"][:2] == ("", "True")


def test_neither_pandas_nor_polars_is_needed(tmp_path, monkeypatch):
    for name in ("pandas", "polars"):
        monkeypatch.setitem(sys.modules, name, None)
    assert read_sheet(write(tmp_path, delimited(",").encode())).rows_of(FILES).columns["patient"][1] == "01"


class Polars:
    """What a polars frame offers of what is used."""

    def __init__(self, columns):
        self._columns, self.columns = columns, list(columns)

    def __getitem__(self, name):
        return type("Series", (), {"to_list": lambda own: list(self._columns[name])})()


def test_a_frame_of_polars():
    rows = read_sheet(Polars({"path": FILES, "label": ["a", None] * 6})).rows_of(FILES)
    assert rows.columns["label"] == ("a", "") * 6


@pytest.mark.parametrize(
    "change",
    [
        lambda path: "./" + path,
        lambda path: ".\\" + path.replace("/", "\\"),
        lambda path: "D:\\smears\\2024\\" + path.replace("/", "\\"),
        lambda path: "\\\\server\\share\\" + path.replace("/", "\\"),
        lambda path: "/home/me/" + path,
        lambda path: "../images/" + path,
        lambda path: path.removesuffix(".jpg"),
        lambda path: path.replace(".jpg", ".tif"),
        lambda path: path.upper(),
        lambda path: unicodedata.normalize("NFD", path),
        lambda path: f" {path} ",
        lambda path: path.replace("/", " / "),
    ],
)
def test_spellings_of_paths(change):
    match = match_rows([change(path) for path in FILES], FILES)
    assert match.rows == tuple((number,) for number in range(12))


def test_names_alone():
    files = ["a/deep/x1.png", "a/x2.jpg", "b/x2.jpg", "b/x3.jpg", "b/x3.png", "c/x.1.png"]
    match = match_rows(["x1", "x2.jpg", "b/x2", "x3", "x3.png", "x.1", "x9", "", "other/x1"], files)
    assert match.rows == ((0,), (), (2,), (), (4,), (5,))
    # x2 is in two folders; x3.jpg is what x3 means once x3.png has its row.
    assert match.ambiguous == {1: (1, 2)} or match.missing == (6, 7, 8)


@pytest.mark.slow
@settings(max_examples=100)
@given(st.data())
def test_a_row_matches_only_a_file_of_its_name(data):
    part = st.text("abÄ1._ ", min_size=1, max_size=4).filter(lambda text: text.strip(". "))
    path = st.builds("/".join, st.lists(part, min_size=1, max_size=3))
    files = data.draw(st.lists(path.map(lambda own: own + ".png"), min_size=1, max_size=8, unique=True))
    cells = data.draw(st.lists(st.one_of(path, st.sampled_from(files)), max_size=8))
    match = match_rows(cells, files)
    used = [row for rows in match.rows for row in rows]
    assert sorted([*used, *match.missing, *match.ambiguous]) == list(range(len(cells)))
    for number, rows in enumerate(match.rows):
        for row in rows:
            own = [part.strip() for part in files[number].casefold().removesuffix(".png").split("/")]
            cell = [part.strip() for part in cells[row].casefold().removesuffix(".png").split("/")]
            cell = [part for part in cell if part not in ("", ".", "..")]
            shorter = min(len(own), len(cell))
            assert own[-shorter:] == cell[-shorter:]
    for row, cell in enumerate(cells):
        if cell in files:
            assert row in match.rows[files.index(cell)]


def sheet_of(tmp_path, text):
    return read_sheet(write(tmp_path, text.encode()))


def test_what_does_not_match_is_counted_and_named(tmp_path):
    text = "path,label\nBenign/0.jpg,a\nBenign/9.jpg,a\n0,b\nFrüh/1.jpg,b\nFrüh/1.jpg,b\n"
    remarks = " ".join(sheet_of(tmp_path, text).rows_of(FILES).remarks)
    assert "1 row of" in remarks
    assert "Benign/9.jpg in line 3" in remarks
    assert "several images, and none is taken: 0 in line 4" in remarks
    assert "1 rows of" in remarks
    assert "10 images have no row" in remarks
    with pytest.raises(DataError, match=r"twice, in lines 2 and 3, with label 'a' and 'b'"):
        sheet_of(tmp_path, "path,label\n0.jpg,a\n0.JPG,b\n").rows_of(["0.jpg"])
    with pytest.raises(
        DataError, match=r"None of the 1 rows .* 'x/y.jpg' in line 2, and the first image is 'Benign/0.jpg'"
    ):
        sheet_of(tmp_path, "path,label\nx/y.jpg,a\n").rows_of(FILES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n", "none of which is known to name the images"),
        ("path,group,group\na,1,2\n", "'group' is there twice, as number 2 and as number 3"),
        ("path,Group,group \na,1,2\n", "there twice"),
        ("path,group,patient\na.jpg,Hospital, North,P1\n", "line 2: 4 cells, expected 3"),
        ("path,patient\na,1\nb,1.0\n", "'1' in line 2 and '1.0' in line 3"),
        ("path,patient\na,7\nb,007\n", "one number"),
        ("path,patient\na,20261130000000001\nb,020261130000000001\n", "one number"),
        ("path,patient\na,7\nb,2.02611E+16\n", r"patient is '2.02611E\+16' in line 3, a long number .* rounded"),
        ("path;site\na;2,02611E+16\n", "rounded"),
        ("path,group\na,1,5\n", "3 cells"),
        ("path,case,subject\na,1,2\n", "'case' and 'subject', each of which may be the patient"),
        ('path,label\na,"b\n', "line"),
        ("path,label,patient\na,b,c\nd,e", "seems to be cut"),
        ("path,\0\n", "no text"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        sheet_of(tmp_path, text)


def test_rows_of_blanks_headers_and_missing_values(tmp_path):
    text = "sep=;\r\n;;\r\nImage Name; Class ;Fall-Nr.;x;\r\n0.jpg;a;12;1;\r\n1.jpg;NaN;n/a;2;\r\n;;;;\r\n;;;;\r\n"
    sheet = sheet_of(tmp_path, text)
    rows = sheet.rows_of(["0.jpg", "1.jpg"])
    assert rows.columns == {"label": ("a", ""), "patient": ("12", ""), "x": ("1", "2")}
    assert "1 cells of label" in " ".join(sheet.remarks)
    assert sheet.headings == {"label": "Class", "patient": "Fall-Nr."}


def test_images_of_one_lesion_are_a_group(tmp_path):
    rows = sheet_of(tmp_path, "lesion_id,image_id,dx\nL1,0,a\nL1,1,a\nL2,2,b\n").rows_of(["0.jpg", "1.jpg", "2.jpg"])
    assert rows.columns == {"label": ("a", "a", "b"), "group": ("L1", "L1", "L2")}
    rows = sheet_of(tmp_path, "slide_id,tile,class\nS1,0,a\nS1,1,a\nS2,2,b\n").rows_of(["0.jpg", "1.jpg", "2.jpg"])
    assert rows.columns == {"label": ("a", "a", "b"), "group": ("S1", "S1", "S2")}
    text = "slide_id,tile,class,lesion_id\nS1,0,a,1\nS1,1,a,1\nS1,2,b,2\n"
    assert sheet_of(tmp_path, text).rows_of(["0.jpg", "1.jpg", "2.jpg"]).columns["group"] == ("1", "1", "2")


def test_long_numbers_are_ids_of_their_own(tmp_path):
    """Numbers beyond 2**53 are one as floating-point numbers."""
    own = [str(20261130000000001 + number) for number in range(3)]
    text = "path,patient\n" + "".join(f"{number}.jpg,{cell}\n" for number, cell in enumerate(own))
    assert sheet_of(tmp_path, text).rows_of(["0.jpg", "1.jpg", "2.jpg"]).columns["patient"] == tuple(own)
    codes = "path,patient\n0.jpg,2E16\n1.jpg,12E3\n"
    assert sheet_of(tmp_path, codes).rows_of(["0.jpg", "1.jpg"]).columns["patient"] == ("2E16", "12E3")


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["xlsx", "parquet", "json"])
def test_long_numbers_that_were_rounded_are_refused(tmp_path, ending):
    import pandas as pd

    table = pd.DataFrame({"path": ["0.jpg", "1.jpg"], "patient": [20261130000000001.0, 20261130000000002.0]})
    file = tmp_path / f"sheet.{ending}"
    table.to_excel(file, index=False) if ending == "xlsx" else getattr(table, f"to_{ending}")(file)
    with pytest.raises(DataError, match=r"rounded"):
        read_sheet(file).rows_of(["0.jpg", "1.jpg"])


def test_columns_by_option(tmp_path):
    text = "image,case,subject,class,stain\n0.jpg,1,s1,a,H\n1.jpg,2,s2,b,G\n"
    config = CollectionConfig(patient_column="subject", label_column="stain", group_column="case")
    rows = read_sheet(write(tmp_path, text.encode()), config).rows_of(["0.jpg", "1.jpg"])
    assert rows.columns == {"label": ("H", "G"), "patient": ("s1", "s2"), "group": ("1", "2"), "class": ("a", "b")}
    with pytest.raises(DataError, match="expected 'slide' too, named by patient_column"):
        read_sheet(tmp_path / "sheet.csv", CollectionConfig(patient_column="slide"))
    none = CollectionConfig(patient_column="none", label_column="none")
    assert set(read_table(tmp_path / "sheet.csv", none).columns) == {"case", "subject", "class", "stain"}


def test_the_column_of_paths_is_the_one_that_matches(tmp_path):
    sheet = sheet_of(tmp_path, "file,id,label\nold_1.tif,x1,a\nold_2.tif,x2,b\n")
    rows = sheet.rows_of(["x1.png", "x2.png"])
    assert rows.heading == "id"
    assert rows.columns == {"label": ("a", "b"), "file": ("old_1.tif", "old_2.tif")}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Training", "train"),
        ("VALID", "val"),
        ("hold-out", "test"),
        ("fold_03", "3"),
        ("Fold 0", "0"),
        ("odd", "odd"),
        ("2", "2"),
    ],
)
def test_names_of_splits(name, value):
    assert split_value(name) == value


_CELLS = st.text(st.characters(codec="cp1252", exclude_categories=("Cc", "Zs", "Zl", "Zp", "Cf")))


@pytest.mark.slow
@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(_CELLS, _CELLS),
        min_size=1, max_size=6,
    ),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["utf-8", "utf-16", "utf-8-sig"]),
)  # fmt: skip
def test_any_cell_is_read_back(tmp_path_factory, cells, separator, encoding):
    rows = [(f"{number}.png", *own) for number, own in enumerate(cells)]
    rows = [tuple(unicodedata.normalize("NFC", cell) for cell in row) for row in rows]
    path = write(tmp_path_factory.mktemp("s"), delimited(separator, rows, ("path", "x", "y")).encode(encoding))
    found = read_sheet(path).rows_of([row[0] for row in rows]).columns
    from ball_features.files import plain_cell

    expected = [tuple(plain_cell(row[place]) for row in rows) for place in (1, 2)]
    assert [found.get("x", ("",) * len(rows)), found.get("y", ("",) * len(rows))] == expected


def test_numpy_columns():
    rows = read_sheet({"path": np.array(FILES), "patient": np.arange(12), "label": np.array(["a", "b"] * 6)})
    assert rows.rows_of(FILES).columns["patient"][3] == "3"


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_title_above_the_header(tmp_path, separator):
    """As exports of studies have it; its cells are padded to the width of the table."""
    blank = separator * (len(HEADER) - 1)
    path = write(tmp_path, f"Study 7, all cells{blank}\n{blank}\n{delimited(separator)}".encode())
    if separator == ",":
        path = write(tmp_path, f'"Study 7, all cells"{blank}\n{blank}\n{delimited(separator)}'.encode())
    rows = read_sheet(path).rows_of(FILES)
    assert rows.columns["patient"] == tuple(row[2] for row in ROWS)


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        (("filnamn", "diagnos", "patient", "sjukhus", "uppdelning", "not"), "cp1252"),
        (("soubor", "diagnóza", "pacient", "nemocnice", "x", "y"), "utf-8"),
        (("파일", "진단", "환자", "병원", "x", "y"), "utf-16"),
        (("файл", "діагноз", "пацієнт", "лікарня", "x", "y"), "utf-8-sig"),
    ],
)
def test_headers_of_more_languages(tmp_path, header, encoding):
    rows = read_sheet(write(tmp_path, delimited(";", header=header).encode(encoding))).rows_of(FILES)
    assert rows.columns["label"] == tuple(row[1] for row in ROWS)
    assert rows.columns["patient"] == tuple(row[2] for row in ROWS)
    assert rows.columns["site"] == ("A;B",) * 12


def test_no_name_of_a_role_is_there_twice():
    from ball_features.dataset import sheet_columns

    for role, names in sheet_columns._PLAIN.items():
        assert len(set(names)) == len(names), role


def test_addresses_name_files(tmp_path):
    files = ["a/1.jpg", "a/Früh 2.jpg"]
    names = ["https://x.org/a/1.jpg?v=3#top", "file:///data/a/Fr%C3%BCh%202.jpg"]
    sheet = read_sheet({"image": names, "patient": ["P", "Q"]})
    assert sheet.rows_of(files).columns["patient"] == ("P", "Q")


def test_messages_on_sheets_that_match_nothing(tmp_path):
    files = ["Benign/0.jpg", "Early/0.jpg"]
    with pytest.raises(DataError, match=r"'0.jpg' in line 2, which may be Benign/0.jpg, Early/0.jpg"):
        read_sheet({"image": ["0.jpg"], "patient": ["P"]}).rows_of(files)
    with pytest.raises(DataError, match="a header and no row"):
        read_sheet(write(tmp_path, b"image,class\n")).rows_of(files)


def read(tmp_path, columns, files=FILES, separator=","):
    """Columns of the images, of a sheet that has a row for each."""
    header, cells = list(columns), list(columns.values())
    text = delimited(separator, list(zip(*cells, strict=True)), header)
    sheet = read_sheet(write(tmp_path, text.encode()))
    rows = sheet.rows_of(files)
    return rows.columns, " ".join((*sheet.remarks, *rows.remarks))


@pytest.mark.parametrize(
    ("columns", "split"),
    [
        ({"is_test": ["True", "False", "no"] * 4}, "test train train"),
        ({"IsTest": ["1", "0", ""] * 4}, None),  # one word: it may be anything
        ({"is_train": ["yes", "no", "no"] * 4}, "train test test"),
        ({"in_test": ["x", "", ""] * 4}, "test train train"),
        ({"is_val": ["1", "0", "0"] * 4, "is_test": ["0", "1", "0"] * 4}, "val test train"),
        ({"train": ["1", "0", "0"] * 4, "val": ["0", "1", "0"] * 4, "test": ["0", "0", "1"] * 4}, "train val test"),
        ({"ist_test": ["ja", "nein", "nein"] * 4}, "test train train"),
        ({"is_test": ["1.0", "0.0", "0.0"] * 4}, "test train train"),
        ({"test": ["1", "0", "0"] * 4}, None),  # perhaps the result of one
        ({"is_test": ["1", "0", "maybe"] * 4}, None),
        ({"is_val": ["1", "0", "0"] * 4}, None),
        ({"is_val": ["1", "0", "0"] * 4, "is_test": ["1", "0", "0"] * 4}, None),
        ({"is_test": ["1", "1", "1"] * 4}, None),
        ({"split": ["train", "val", "test"] * 4, "is_test": ["1", "0", "0"] * 4}, "train val test"),
    ],
)
def test_columns_that_say_yes_or_no_to_a_split(tmp_path, columns, split):
    found, said = read(tmp_path, {"image": FILES, **columns})
    assert found.get("split") == (None if split is None else tuple(split.split() * 4))
    assert ("The split is read from" in said) == (split is not None and "split" not in columns)


@pytest.mark.parametrize("word", ["NA", "n/a", "#N/A", "#NV", "NaN", "?", "-", "--", ".", "k.A.", "n.d.", "NULL"])
def test_words_for_a_missing_class(tmp_path, word):
    found, said = read(tmp_path, {"image": FILES, "label": [word, "a", "b"] * 4})
    assert found["label"] == ("", "a", "b") * 4
    assert f"say {word!r} and are taken as empty" in said


@pytest.mark.parametrize("word", ["unknown", "Unbekannt", "None", "desconocido", "TBD"])
def test_words_that_may_be_a_class_and_are_no_patient(tmp_path, word):
    found, said = read(tmp_path, {"image": FILES, "label": [word, "a", "b"] * 4, "patient": ["P", word, "Q"] * 4})
    assert found["label"] == (word, "a", "b") * 4
    assert f"{word!r} is taken for a class of 4 rows" in said
    assert found["patient"] == ("P", "", "Q") * 4


@pytest.mark.parametrize(
    ("header", "roles"),
    [
        ("Nom du fichier|Diagnostic|N° patient|Hôpital|Ensemble", "label patient site split"),
        ("Imagen|Diagnóstico|ID paciente|Hospital|Conjunto", "label patient site split"),
        ("Nome file|Diagnosi|Codice paziente|Ospedale|Suddivisione", "label patient site split"),
        ("Arquivo|Diagnóstico|Nº paciente|Hospital|Conjunto", "label patient site split"),
        ("Bilddatei|Diagnose|Nr. Patient|Klinik|Aufteilung", "label patient site split"),
        ("Image file|Diagnosis (final)|Patient ID (pseudonym)|Site name|Data split", "label patient site split"),
        ("image\n(name)|diagnosis [ICD]|patient\n(study no.)|scanner|set", "label patient site split"),
        ("imageFileName|cellType|patientId|siteName|dataSplit", "label patient site split"),
        ("image_path|ground_truth|patient_no|hospital_code|fold", "label patient site split"),
        ("SOPInstanceUID|label|PatientID|InstitutionName|Train/Test", "label patient site split"),
        ("tile|class|case_id|scanner|split", "label patient site split"),
    ],
)
def test_headings_as_people_write_them(tmp_path, header, roles):
    values = [FILES, ["a", "b"] * 6, ["P1", "P2", "P3"] * 4, ["X", "Y"] * 6, ["train", "test"] * 6]
    found, said = read(tmp_path, dict(zip(header.split("|"), values, strict=True)), separator=";")
    assert list(found) == roles.split()
    assert [found[name][:3] for name in found] == [tuple(own[:3]) for own in values[1:]]
    assert not said


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("fold 1 of 5", "1"), ("Fold 03 von 10", "3"), ("2/5", "2"), ("cv_0", "0"), ("k-2", "2"), ("part 4", "4"),
        ("2.0", "2"), ("-1", "-1"), ("1-2", "1-2"), ("1.5", "1.5"), ("validating", "val"), ("Tests", "test"),
        ("set1", "set1"), ("holdout", "test"), ("DEV", "val"), ("", ""),
        ("007.00", "7"), ("0", "0"), ("7" * 5000, "7" * 5000),
    ],
)  # fmt: skip
def test_names_of_parts(text, value):
    assert split_value(text) == value


@pytest.mark.parametrize(
    ("cell", "file"),
    [
        ("1.jpg", "1.jpg.png"), ("1", "1.jpg.png"), ("1.jpg.png", "1.jpg"), ("12.0", "12.png"), ("12", "12.0.png"),
        ("C:\\Users\\me\\a b\\1.jpg", "1.jpg"), ("https://x.org/a%20b/1%2Ejpg?w=3", "a b/1.jpg"),
        ("A/1.JPG", "a/1.jpg"), ("1 .jpg", "1.jpg"), (" 1.jpg ", "1.jpg"), ("1.tiff", "1.jpg"),
        ("//server/share/x/1.jpg", "x/1.jpg"),
    ],
)  # fmt: skip
def test_names_of_files_as_people_write_them(cell, file):
    assert match_rows([cell], [file, "other/2.jpg"]).rows[0] == (0,)


@pytest.mark.parametrize("name", ["Früh", "Présence", "Leucémie", "Más"])
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "latin-1", "mac-roman", "utf-16"])
def test_letters_of_excel_on_any_system(tmp_path, name, encoding):
    text = f"image;diagnosis\n1.jpg;{name}\n2.jpg;{name}\n"
    assert read_table(write(tmp_path, text.encode(encoding))).columns["label"] == (name, name)


@pytest.mark.parametrize(
    "text", ["it\u2019s 5 \u20ac \u2013 \u201cquoted\u201d", "na\u0161e \u0161kola r\u00e9sum\u00e9"]
)
def test_marks_of_windows_stay_marks(tmp_path, text):
    sheet = read_table(write(tmp_path, f"image;note\n1.jpg;{text}\n".encode("cp1252")))
    assert sheet.columns["note"] == (text,)


@pytest.mark.parametrize("start", ["<html><table>", "\n <table>"])
def test_what_is_no_table_is_named(tmp_path, start):
    with pytest.raises(DataError, match="seems to be HTML or XML"):
        read_sheet(write(tmp_path, start.encode()))


def workbook(tmp_path, sheets, merged=()):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
        for cells in merged:
            sheet.merge_cells(cells)
    book.save(tmp_path / "s.xlsx")
    return tmp_path / "s.xlsx"


def test_merged_rows_above_the_header(tmp_path):
    above = [["Study 7", None, None], ["images", None, "people"], ["image", "diagnosis", "patient"]]
    path = workbook(tmp_path, {"S": [*above, ["1.jpg", "a", 7.0], ["2.jpg", "b", 8.0]]}, ("A1:C1", "A2:B2"))
    sheet = read_table(path)
    assert sheet.columns == {"label": ("a", "b"), "patient": ("7", "8")}
    assert "taken from line 3" in sheet.remarks[-1]


def test_several_worksheets_are_not_guessed(tmp_path):
    header = ["image", "label"]
    rows = {"Monday": [header, ["1.jpg", "a"]], "Tuesday": [header, ["2.jpg", "b"]]}
    with pytest.raises(DataError, match=r"\(Monday\) and .* \(Tuesday\) have the same columns. Two readings are possi"):
        read_sheet(workbook(tmp_path, rows))
    codes = {"Codes": [["code", "meaning"], [1, "a"]], "Images": [header, ["1.jpg", "a"]], "Numbers": [["id"], ["x"]]}
    assert read_table(workbook(tmp_path, codes)).columns["label"] == ("a",)


def test_worksheets_that_are_named_for_splits(tmp_path):
    header = ["image", "label"]
    rows = {"Train": [header, ["1.jpg", "a"], ["2.jpg", "b"]], "Test": [header, ["3.jpg", "b"]]}
    sheet = read_sheet(workbook(tmp_path, rows))
    found = sheet.rows_of(["1.jpg", "2.jpg", "3.jpg"])
    assert found.columns == {"label": ("a", "b", "b"), "split": ("train", "train", "test")}
    assert "The split is read from the names of" in sheet.remarks[-1]


def test_worksheets_of_images_and_of_patients(tmp_path):
    people = [["patient", "diagnosis", "age"], ["P1", "a", 4], ["P2", "b", 5], ["P3", "b", 6]]
    images = [["image", "patient"], ["1.jpg", "P1"], ["2.jpg", "P2"], ["3.jpg", "P2"]]
    found = read_sheet(workbook(tmp_path, {"People": people, "Images": images})).rows_of(["1.jpg", "2.jpg", "3.jpg"])
    assert found.columns == {"patient": ("P1", "P2", "P2"), "label": ("a", "b", "b"), "age": ("4", "5", "5")}
    assert "1 patient of" in found.remarks[0]
    assert "P3 in line 4" in found.remarks[0]


@pytest.mark.slow
def test_a_worksheet_of_patients_adds_what_the_images_lack(tmp_path):
    images = [["image", "patient", "label"], ["1.jpg", "P1", "x"], ["2.jpg", "P2", "y"]]
    people = [["patient", "diagnosis", "age"], ["P1", "a", 4], ["P2", "b", 5]]
    sheet = read_sheet(workbook(tmp_path, {"Images": images, "People": people}))
    columns = {"patient": ("P1", "P2"), "label": ("x", "y"), "age": ("4", "5")}
    assert sheet.rows_of(["1.jpg", "2.jpg"]).columns == columns
    assert "label of" in sheet.remarks[-1]
    assert "(People) is not read" in sheet.remarks[-1]
    both = read_sheet(workbook(tmp_path, {"Images": images, "A": people, "B": people}))
    assert both.rows_of(["1.jpg", "2.jpg"]).columns == {"patient": ("P1", "P2"), "label": ("x", "y")}
    assert "have the same columns and are not read beside" in both.remarks[-1]
    with pytest.raises(DataError, match="have the same columns"):
        read_sheet(workbook(tmp_path, {"A": people, "B": people}))


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("gb18030", "\u826f\u6027"),
        ("gb18030", "\u533b\u9662\u768e\u507c\u60a3\u8005\u7f16\u53f7"),
        ("shift_jis", "\u826f\u6027"),
        ("shift_jis", "\u75c5\u9662\u30bd\u8868\u80fd\u529b\uff9e"),  # two of its bytes are | and \
        ("shift_jis", "\u30dd\u30b9\u30bf\u30fc"),
        ("cp1252", "gr\xf6\xdfe patient\u2019s \u201cquoted\u201d \u2013 cr\xe9\xe9e \xc4\xd6"),
        ("cp1252", "\xc9l\xe9onore"),
        ("mac-roman", "gr\xfcn F\xe4rbung"),
    ],
)
def test_an_encoding_is_told_by_its_text(tmp_path, encoding, name):
    """In a sheet and, with a note, in a groups file."""
    path = write(tmp_path, f"path,group\n{name}/1.jpg,{name}\nb/2.jpg,x\n".encode(encoding))
    images = [f"{name}/1.jpg", "b/2.jpg"]
    assert read_sheet(path).rows_of(images).columns == {"group": (name, "x")}
    groups = table_of_file(str(path), images)
    assert groups.read("group").tolist() == [name, "x"]
    assert "save it as UTF-8 where letters in it are wrong" in groups.notes()[0]


@pytest.mark.parametrize("encoding", ["big5", "euc-kr", "euc-jp"])
def test_an_encoding_that_is_guessed_wrong_is_named(tmp_path, encoding):
    sheet = read_sheet(write(tmp_path, "path,group\n\u826f\u6027/1.jpg,P1\n".encode(encoding)))
    with pytest.raises(
        DataError, match=r"None of the 1 rows .*is read as [\w-]+; save it as UTF-8 where letters in it"
    ):
        sheet.rows_of(["\u826f\u6027/1.jpg"])


@pytest.mark.parametrize("filled", [0, 3])
def test_formulas_that_were_never_computed_are_told(tmp_path, filled):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["path", "label", "patient", "split"])
    for row in range(8):
        book.active.append([f"{row}.jpg", "ab"[row % 2], f"P{row}" if row < filled else f"=D{row}", "train"])
    book.save(tmp_path / "a.xlsx")
    (remark,) = (one for one in read_sheet(tmp_path / "a.xlsx").remarks if "empty" in one)
    assert remark.startswith(f"{8 - filled} of 8 cells of patient in ")
