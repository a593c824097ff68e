"""Sheets and settings of a few bytes that claim, or would cost, a machine's memory."""

import json
import os
import resource
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ball_features import FitConfig
from ball_features.config import CollectionConfig
from ball_features.config.toml import read_settings
from ball_features.dataset import contained
from ball_features.dataset.group_table import table_of_file
from ball_features.dataset.labels import read_labels
from ball_features.dataset.matching import match_rows
from ball_features.dataset.sheet import read_sheet
from ball_features.dataset.sheet_formats import read_tables
from ball_features.errors import ConfigError, DataError

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"


def workbook(path, rows, sheet="worksheets/sheet1.xml", more=None, sheets=1):
    """A spreadsheet with these rows, as XML.

    Args:
        path: file to write.
        rows: content of the sheet, and what follows its cells.
        sheet: name of its part.
        more: further parts.
        sheets: number of names that the sheet has.
    """
    names = "".join(f'<sheet name="S{number}" sheetId="{number}" r:id="r1"/>' for number in range(1, sheets + 1))
    parts = {
        "_rels/.rels": f'<Relationships xmlns="{PACKAGE}"><Relationship Id="r1" Type="{OFFICE}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}"><sheets>{names}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{PACKAGE}"><Relationship Id="r1" '
        f'Type="{OFFICE}/worksheet" Target="{sheet}"/><Relationship Id="r2" '
        f'Type="{OFFICE}/sharedStrings" Target="sharedStrings.xml"/></Relationships>',
        f"xl/{sheet}": f'<worksheet xmlns="{MAIN}"><sheetData>{rows}</worksheet>'.replace(
            "</worksheet>", "</worksheet>" if "</sheetData>" in rows else "</sheetData></worksheet>"
        ),
        **(more or {}),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in parts.items():
            file.writestr(name, text)
    return path


def row(number, **cells):
    own = "".join(f'<c r="{name}{number}" t="inlineStr"><is><t>{text}</t></is></c>' for name, text in cells.items())
    return f'<row r="{number}">{own}</row>'


@pytest.mark.slow
def test_a_spreadsheet_with_a_cell_at_its_far_corner_is_refused(tmp_path):
    sound = workbook(tmp_path / "a.xlsx", row(1, A="path", C="label") + row(9000, A="a.jpg", C="x"))
    assert read_tables(sound)[0].rows == [["path", "", "label"], ["a.jpg", "", "x"]]
    far = workbook(tmp_path / "b.xlsx", row(1, A="path") + row(1048576, XFD="x"))
    with pytest.raises(DataError, match="spans 1048576 rows and 16384 columns"):
        read_tables(far)


@pytest.mark.slow
def test_a_spreadsheet_that_unpacks_without_a_bound_is_refused(tmp_path):
    with pytest.raises(DataError, match="unpacks to more than its size warrants"):
        read_tables(workbook(tmp_path / "a.xlsx", row(1, A="path") + " " * 80_000_000))


def refused(path, said):
    """Nothing is read, and this process takes no memory for it; that of the reader is bounded by `contained`."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=said) as caught:
        read_tables(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    assert len(str(caught.value)) < 800


def shared(text, count):
    """Parts of a workbook that says one text in many cells."""
    cells = "".join(f'<row r="{n}"><c r="A{n}" t="s"><v>0</v></c></row>' for n in range(1, count + 1))
    return cells, {"xl/sharedStrings.xml": f'<sst xmlns="{MAIN}" count="1"><si><t>{text}</t></si></sst>'}


@pytest.mark.slow
def test_one_long_text_in_many_cells_is_refused(tmp_path):
    cells, more = shared("path", 3)
    assert read_tables(workbook(tmp_path / "a.xlsx", cells, more=more))[0].rows == [["path"]] * 3
    cells, more = shared("x" * 1_000_000, 20_000)  # 20 GB of texts in 100 kB
    refused(workbook(tmp_path / "b.xlsx", cells, more=more), "more memory than its size warrants")


@pytest.mark.slow
def test_a_part_that_unpacks_to_more_than_the_archive_says_is_refused(tmp_path):
    bomb = b"<sst>" + bytes(200_000_000)
    path = workbook(tmp_path / "a.xlsx", row(1, A="path"), more={"xl/sharedStrings.xml": bomb})
    data = bytearray(path.read_bytes())
    for magic, place in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        at = data.find(b"xl/sharedStrings.xml", data.rfind(magic) if magic == b"PK\x01\x02" else 0)
        head = data.rfind(magic, 0, at)
        struct.pack_into("<I", data, head + place, 1000)  # the claimed size
    path.write_bytes(data)
    refused(path, "cannot be read as a spreadsheet")


@pytest.mark.slow
def test_a_far_cell_is_refused_whatever_its_part_is_called(tmp_path):
    for number, far in enumerate((row(1048576, XFD="x"), row(1048576, XFD="x").replace('"', "'"))):
        path = workbook(tmp_path / f"{number}.xlsx", row(1, A="path") + far, sheet="other/thing.bin")
        refused(path, "spans 1048576 rows and 16384 columns")


@pytest.mark.slow
def test_many_names_of_one_sheet_are_refused(tmp_path):
    body = "".join(row(number, A="path", C="x" * 50) for number in range(1, 20_000))
    refused(workbook(tmp_path / "a.xlsx", body, sheets=20_000), "it names 20000 sheets")


@pytest.mark.slow
def test_merged_blocks_that_overlap_are_refused(tmp_path):
    body = "".join(row(number, A="path", CA="x") for number in range(1, 3000))
    merged = '<mergeCell ref="A1:CA3000"/>' * 100_000
    path = workbook(tmp_path / "a.xlsx", f"{body}</sheetData><mergeCells>{merged}</mergeCells>")
    refused(path, "merged blocks overlap")


@pytest.mark.slow
def test_a_reader_that_takes_too_long_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(contained, "_FREE_SECONDS", 1)
    refused(document(tmp_path / "a.ods", repeated(1_000_000, 8)), "longer than its size warrants")


def test_formulas_and_links_to_other_files_are_read_as_what_they_were(tmp_path):
    cell = '<c r="B2" t="str"><f>HYPERLINK("http://localhost/","[1]S!A1")</f><v>P1</v></c>'
    more = {
        "xl/externalLinks/externalLink1.xml": f'<externalLink xmlns="{MAIN}"><externalBook r:id="r1"/></externalLink>',
        "xl/externalLinks/_rels/externalLink1.xml.rels": f'<Relationships xmlns="{PACKAGE}"><Relationship Id="r1" '
        'Type="x" Target="file:///etc/passwd" TargetMode="External"/></Relationships>',
    }
    body = row(1, A="path", B="patient") + f'<row r="2"><c r="A2" t="inlineStr"><is><t>a.jpg</t></is></c>{cell}</row>'
    assert read_tables(workbook(tmp_path / "a.xlsx", body, more=more))[0].rows[1] == ["a.jpg", "P1"]


@pytest.mark.parametrize(
    "entity", ['<!ENTITY a SYSTEM "file:///etc/passwd">', '<!ENTITY b "xxxxxxxxxx"><!ENTITY a "' + "&b;" * 999 + '">']
)
def test_entities_are_not_followed(tmp_path, entity):
    path = workbook(tmp_path / "a.xlsx", row(1, A="path", B="&a;"))
    with zipfile.ZipFile(path) as old:
        parts = {item.filename: old.read(item) for item in old.infolist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, data in parts.items():
            head = f"<!DOCTYPE x [{entity}]>".encode() if "sheet1.xml" in name and "rels" not in name else b""
            file.writestr(name, head + data)
    try:
        rows = read_tables(path)[0].rows
    except DataError:
        return
    assert "root:" not in str(rows)
    assert len(str(rows)) < 1000


ODS = (
    '<office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
    'xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" '
    'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"><office:body><office:spreadsheet>'
    '<table:table table:name="S">{rows}</table:table></office:spreadsheet></office:body></office:document-content>'
)


def document(path, rows):
    """An OpenDocument spreadsheet."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet", zipfile.ZIP_STORED)
        file.writestr("META-INF/manifest.xml", "<manifest/>")
        file.writestr("content.xml", ODS.format(rows=rows))
    return path


def repeated(rows, columns, text="x"):
    return (
        f'<table:table-row table:number-rows-repeated="{rows}"><table:table-cell office:value-type="string" '
        f'table:number-columns-repeated="{columns}"><text:p>{text}</text:p></table:table-cell></table:table-row>'
    )


@pytest.mark.slow
def test_repeated_cells_of_an_open_document(tmp_path):
    sound = document(tmp_path / "a.ods", repeated(1, 2, "path") + repeated(2, 2, "y"))
    assert read_tables(sound)[0].rows == [["path", "path"], ["y", "y"], ["y", "y"]]
    for number, size in enumerate(((1_048_576, 16_384), (1, 4_000_000_000), (-1, -1))):
        path = document(tmp_path / f"{number}.ods", repeated(1, 2, "path") + repeated(*size))
        try:
            assert len(read_tables(path)[0].rows) <= 1_048_576  # what it claims is cut
        except DataError as error:
            assert "cannot be read as a spreadsheet" in str(error)


@pytest.mark.slow
def test_binary_workbooks_that_are_damaged_or_random(tmp_path):
    draw = np.random.default_rng(0)
    for number, head in enumerate((b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")):
        path = tmp_path / f"{number}.xls"
        path.write_bytes(head + draw.bytes(4096))
        refused(path, "cannot be read as a spreadsheet")


def parquet_of(file, **columns):
    from pyarrow import parquet

    parquet.write_table(pa.table(columns), file, compression="zstd")
    return file


@pytest.mark.slow
def test_parquet_that_repeats_a_value_without_an_end_is_refused(tmp_path):
    sound = parquet_of(tmp_path / "a.parquet", path=["a.jpg"], site=["x"], nested=[{"a": [1]}])
    assert read_tables(sound)[0].rows == [["path", "site"], ["a.jpg", "x"]]
    long = parquet_of(
        tmp_path / "b.parquet", path=pa.DictionaryArray.from_arrays(np.zeros(50_000, np.int32), ["x" * 100_000])
    )
    assert long.stat().st_size < 1_000_000
    refused(long, "more memory than its size warrants")
    wide = parquet_of(tmp_path / "c.parquet", path=pa.array(np.zeros(120_000_000, bool)))
    assert wide.stat().st_size < 1_000_000
    refused(wide, "claims 120000000 rows of 1 columns")


@pytest.mark.slow
def test_values_of_parquet_that_python_has_not(tmp_path):
    far = pa.array([2**62], pa.timestamp("ms"))
    try:
        found = read_tables(parquet_of(tmp_path / "a.parquet", path=pa.array(["a.jpg"]), far=far))
        assert found[0].rows[1][0] == "a.jpg"
    except DataError as error:
        assert "cannot be read as Parquet" in str(error)


@pytest.mark.slow
def test_damaged_parquet_is_refused(tmp_path):
    path = parquet_of(tmp_path / "a.parquet", path=[f"{n}.jpg" for n in range(500)], site=["x"] * 500)
    data, draw = path.read_bytes(), np.random.default_rng(0)
    for _ in range(6):
        changed = bytearray(data)
        for place in draw.integers(4, len(data), 20).tolist():
            changed[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(changed)
        try:
            assert len(read_tables(path)[0].rows) < 100_000
        except DataError as error:
            assert "cannot be read as Parquet" in str(error)


def test_a_text_of_blank_lines_is_no_work(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"path,label\n" + b"\n" * 300_000 + b"a.jpg,x\n")
    assert read_tables(path)[0].rows == [["path", "label"], ["a.jpg", "x"]]


@pytest.mark.slow
def test_a_record_of_very_many_names_is_no_work(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(
        '[{"path": "a.jpg", ' + ", ".join(f'"c{number}": 1' for number in range(300_000)) + ', "c299999": 2}]'
    )
    start = time.process_time()
    refused(path, "'c299999' is there twice")
    assert time.process_time() - start < 20


@pytest.mark.slow
def test_a_table_of_a_million_columns_is_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"path,label" + b",x" * 200_000 + b"\na,b" + b",1" * 200_000 + b"\n")
    assert len(read_tables(path)[0].rows[1]) == 200_002


@pytest.mark.slow
def test_a_sheet_of_very_many_columns_is_refused_at_once_and_of_many_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("path,label" + "".join(f",c{n}" for n in range(100_000)) + "\na,b" + "," * 100_000 + "\n")
    begin = time.process_time()
    with pytest.raises(DataError, match=r"has 100,002 columns, expected at most 16,384"):
        read_sheet(path)
    path.write_text("path,label" + "".join(f",c{n}" for n in range(16_000)) + "\na,b" + ",1" * 16_000 + "\n")
    assert len(read_sheet(path).columns) == 16_001
    assert time.process_time() - begin < 30  # ten times what it takes; comparing each column with each took longer


@pytest.mark.parametrize(
    "text",
    [
        "a" + ".a" * 49_000 + " = 1",
        "[" + ".".join(["a"] * 49_000) + "]",
        "x = {a" + ".a" * 40_000 + " = 1}",
        'a = "\\u0000"',
    ],
)
def test_keys_without_an_end_are_refused(tmp_path, text):
    (tmp_path / "a.toml").write_text(f"{text}\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings(tmp_path / "a.toml")


def test_settings_from_a_device_without_an_end_are_refused():
    with pytest.raises(ConfigError, match="more than 100000 bytes"):
        read_settings(Path("/dev/zero"))


def test_a_number_that_no_float_holds_is_out_of_range():
    with pytest.raises(ConfigError, match="repeats"):
        FitConfig(repeats=10**400)


@pytest.mark.parametrize("text", ["[" * 40_000 + "]" * 40_000, "{a=" * 20_000 + "1" + "}" * 20_000, "1" * 200_000])
def test_settings_that_are_nested_or_endless_are_refused(tmp_path, text):
    (tmp_path / "a.toml").write_text(f"a = {text}\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings(tmp_path / "a.toml")


def test_a_groups_file_is_no_pipe(tmp_path):
    os.mkfifo(tmp_path / "groups.csv")
    with pytest.raises(DataError, match="is no file, expected one"):
        table_of_file(str(tmp_path / "groups.csv"), ["a.jpg"])


@pytest.mark.slow
def test_a_reader_that_waits_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(contained, "_CHILD", "import time; time.sleep(60)  # {paths} {limits}")
    monkeypatch.setattr(contained, "_PATIENCE_S", 1)
    monkeypatch.setattr(contained, "_SLOWED", 0)
    refused(document(tmp_path / "a.ods", repeated(1, 1)), "did not answer within 1 s")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("cell", ["/" * 1_000_000 + "a.png", "x/" * 1_000_000 + "a.png", "x\\" * 1_000_000 + "b/a.png"])
def test_a_path_of_many_folders_is_matched_at_once(cell):
    found = match_rows([cell, "b/c.png"], ["b/a.png", "b/c.png", "d/e/f.png"])
    assert found.rows[1] == (1,)
    assert found.rows[0] == (() if cell.startswith("x/") else (0,))


@pytest.mark.slow
@pytest.mark.timeout(20)
@pytest.mark.parametrize("heading", ["(" * 3_000_000, "[{(" * 1_000_000, " " * 3_000_000 + "x", "a_" * 1_000_000])
def test_a_heading_of_megabytes_is_looked_at_at_once(tmp_path, heading):
    path = tmp_path / "a.json"
    rows = [{"path": "a.png", "dx": "A", heading: "1"}, {"path": "b.png", "dx": "B", heading: "2"}]
    path.write_text(json.dumps(rows))
    found = read_sheet(path).rows_of(["a.png", "b.png"])
    assert list(found.columns["label"]) == ["A", "B"]


def test_a_text_of_megabytes_is_no_class(tmp_path):
    (tmp_path / "a.json").write_text(
        json.dumps([{"path": "a.png", "label": "x" * 3_000_000}, {"path": "b.png", "label": "B"}])
    )
    with pytest.raises(DataError, match=r"a class of 3,000,000 characters, expected a name: x+\.\.\. ") as caught:
        read_labels(tmp_path, ["a.png", "b.png"], CollectionConfig(), tmp_path / "a.json")
    assert len(str(caught.value)) < 1000
