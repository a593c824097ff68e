"""Sheets and settings of a few bytes that claim, or would cost, a machine's memory."""

import zipfile

import pytest

from ball_features.config.toml import read_settings
from ball_features.dataset.sheet_formats import read_tables
from ball_features.errors import ConfigError, DataError

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"


def workbook(path, rows):
    """A spreadsheet of one sheet with these rows, as XML."""
    parts = {
        "_rels/.rels": f'<Relationships xmlns="{PACKAGE}"><Relationship Id="r1" Type="{OFFICE}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}"><sheets><sheet name="S" sheetId="1" '
        'r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{PACKAGE}"><Relationship Id="r1" '
        f'Type="{OFFICE}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{MAIN}"><sheetData>{rows}</sheetData></worksheet>',
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in parts.items():
            file.writestr(name, text)
    return path


def row(number, **cells):
    own = "".join(f'<c r="{name}{number}" t="inlineStr"><is><t>{text}</t></is></c>' for name, text in cells.items())
    return f'<row r="{number}">{own}</row>'


def test_a_spreadsheet_with_a_cell_at_its_far_corner_is_refused(tmp_path):
    sound = workbook(tmp_path / "a.xlsx", row(1, A="path", C="label") + row(9000, A="a.jpg", C="x"))
    assert read_tables(sound)[0].rows == [["path", "", "label"], ["a.jpg", "", "x"]]
    far = workbook(tmp_path / "b.xlsx", row(1, A="path") + row(1048576, XFD="x"))
    with pytest.raises(DataError, match="spans 1048576 rows and 16384 columns"):
        read_tables(far)


def test_a_spreadsheet_that_unpacks_without_a_bound_is_refused(tmp_path):
    with pytest.raises(DataError, match="unpacks to more than its size warrants"):
        read_tables(workbook(tmp_path / "a.xlsx", row(1, A="path") + " " * 80_000_000))


def test_a_text_of_blank_lines_is_no_work(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"path,label\n" + b"\n" * 300_000 + b"a.jpg,x\n")
    assert read_tables(path)[0].rows == [["path", "label"], ["a.jpg", "x"]]


def test_a_table_of_a_million_columns_is_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"path,label" + b",x" * 200_000 + b"\na,b" + b",1" * 200_000 + b"\n")
    assert len(read_tables(path)[0].rows[1]) == 200_002


@pytest.mark.parametrize("text", ["[" * 40_000 + "]" * 40_000, "{a=" * 20_000 + "1" + "}" * 20_000, "1" * 200_000])
def test_settings_that_are_nested_or_endless_are_refused(tmp_path, text):
    (tmp_path / "a.toml").write_text(f"a = {text}\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings(tmp_path / "a.toml")
