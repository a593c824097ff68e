"""Cells of each kind that Parquet, arrow and Python have: read as text, or named with what to do."""

import datetime
import decimal

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from ball_features.config import CollectionConfig
from ball_features.dataset.sheet import read_sheet
from ball_features.dataset.sheet_formats import read_tables
from ball_features.errors import DataError

FILES, CLASSES = pa.array(["a.jpg", "b.jpg"]), pa.array(["x", "y"])

# Kinds of cells, and the text that each is read as.
KINDS = {
    "text": (pa.array(["x", None]), "x"),
    "large text": (pa.array(["x", None], pa.large_string()), "x"),
    "dictionary": (pa.array(["x", None]).dictionary_encode(), "x"),
    "binary": (pa.array([b"x", None]), "x"),
    "true": (pa.array([True, None]), "True"),
    "whole": (pa.array([7, None], pa.int8()), "7"),
    "unsigned": (pa.array([2**63 + 1, None], pa.uint64()), "9223372036854775809"),
    "float": (pa.array([7.0, None]), "7"),
    "half": (pa.array(np.array([0.5, np.nan], np.float16)), "0.5"),
    "decimal": (pa.array([decimal.Decimal("7.00"), None]), "7"),
    "hundred": (pa.array([decimal.Decimal("100"), None]), "100"),
    "fraction": (pa.array([decimal.Decimal("7.10"), None]), "7.1"),
    "date": (pa.array([datetime.date(2024, 1, 2), None]), "2024-01-02"),
    "midnight": (pa.array([datetime.datetime(2024, 1, 2), None]), "2024-01-02"),
    "moment": (pa.array([datetime.datetime(2024, 1, 2, 3, 4), None]), "2024-01-02T03:04:00"),
    "time": (pa.array([datetime.time(3, 4), None]), "03:04:00"),
    "whole fine time": (pa.array([11_040_000_000_000, None], pa.time64("ns")), "03:04:00"),
    "fine moment": (pa.array([1, None], pa.timestamp("ns")), "1970-01-01T00:00:00.000000001"),
    "whole fine moment": (pa.array([0, None], pa.timestamp("ns")), "1970-01-01"),
    "fine duration": (pa.array([1, None], pa.duration("ns")), "1e-09"),
    "duration": (pa.array([90_000_000, None], pa.duration("us")), "90"),
    "nothing": (pa.array([None, None]), ""),
}


NO_TEXT = {
    "list": (pa.array([["x", "y"], ["z"]]), "lists or records"),
    "fixed": (pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2)), "lists or records"),
    "struct": (pa.array([{"a": 1}, {"a": 2}]), "lists or records"),
    "map": (pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int32())), "lists or records"),
    "bytes": (pa.array([b"\xff\xd8", b"\xff\xfe"]), "bytes that are no text"),
    "zeros": (pa.array([b"\0\0", b"a"]), "bytes that are no text"),
}


def frame(source, columns):
    return pa.table(columns) if source == "arrow" else {name: cells.to_pylist() for name, cells in columns.items()}


def parquet_of(file, columns):
    parquet.write_table(pa.table(columns), file)
    return file


@pytest.mark.parametrize("source", ["arrow", "mapping"])
@pytest.mark.parametrize("role", ["path", "label", "patient", "site"])
@pytest.mark.parametrize("kind", KINDS)
def test_cells_of_each_kind_are_read_as_text(role, source, kind):
    cells, text = KINDS[kind]
    found = read_sheet(frame(source, {"path": FILES, "note": CLASSES, role: cells}))
    assert (found.paths["path"] if role == "path" else found.columns[role]) == (text, "")
    assert not any("not read" in remark for remark in found.remarks)


@pytest.mark.slow
def test_a_parquet_file_of_all_kinds(tmp_path):
    columns = {name: cells for name, (cells, _) in (KINDS | NO_TEXT).items()}
    (table,) = read_tables(parquet_of(tmp_path / "a.parquet", columns))
    assert table.rows[:2] == [list(KINDS), [text for _, text in KINDS.values()]]
    assert table.unread == {name: what for name, (_, what) in NO_TEXT.items()}
    assert "list (lists or records)" in table.remarks[0]


@pytest.mark.slow
def test_a_label_of_lists_in_parquet_is_refused(tmp_path):
    path = parquet_of(tmp_path / "a.parquet", {"path": FILES, "label": NO_TEXT["list"][0]})
    with pytest.raises(
        DataError, match=r"'label' of .*a\.parquet holds lists or records.*another column by label_column"
    ):
        read_sheet(path)


@pytest.mark.parametrize("source", ["arrow", "mapping"])
@pytest.mark.parametrize("kind", NO_TEXT)
def test_a_column_without_texts_is_named_and_refused_where_it_is_needed(source, kind):
    cells, what = NO_TEXT[kind]
    found = read_sheet(frame(source, {"path": FILES, "label": CLASSES, "note": cells}))
    assert found.columns == {"label": ("x", "y")}
    assert any(f"not read: note ({what})" in remark for remark in found.remarks)
    for role in ("path", "label", "patient"):
        with pytest.raises(DataError, match=f"'{role}' of .* holds {what}.*another column by {role}_column"):
            read_sheet(frame(source, {"path": FILES, "label": CLASSES, role: cells}))
    columns = {"path": FILES, "label": CLASSES, "image": cells, "site": cells, "tag": cells}
    found = read_sheet(frame(source, columns))
    assert (set(found.paths), set(found.columns)) == ({"path"}, {"label"})
    with pytest.raises(DataError, match=f"'tag' of .* holds {what}.*another column by label_column"):
        read_sheet(frame(source, columns), CollectionConfig(label_column="tag"))


@pytest.mark.slow
def test_times_that_python_would_cut(tmp_path):
    cells = pa.array([1, 2], pa.time64("ns"))
    columns = {"path": FILES, "label": CLASSES, "site": cells}
    for sheet in (pa.table(columns), columns, parquet_of(tmp_path / "a.parquet", columns)):
        assert read_sheet(sheet).columns["site"] == ("00:00:00.000000001", "00:00:00.000000002")


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (np.datetime64("2024-01-02", "ns"), "2024-01-02"),
        (np.datetime64("2024-01-02T03:04:00.000000005", "ns"), "2024-01-02T03:04:00.000000005"),
        (np.datetime64("2024-01-02", "D"), "2024-01-02"),
        (np.datetime64("NaT"), ""),
        (np.timedelta64(90_000, "ms"), "90"),
        (np.timedelta64("NaT"), ""),
    ],
)
def test_dates_and_durations_of_numpy(cell, text):
    found = read_sheet({"path": ["a.jpg"], "label": ["x"], "site": np.array([cell])})
    assert found.columns.get("site", ("",)) == (text,)


def test_a_list_of_one_is_its_value():
    found = read_sheet({"path": ["a.jpg", "b.jpg"], "label": [["x"], []], "patient": [np.array([7]), (8,)]})
    assert found.columns == {"label": ("x", ""), "patient": ("7", "8")}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"path": ["a.jpg", "b.jpg"], "label": ["x"]}, r"different numbers of cells \(path 2, label 1\)"),
        ({"path": ["a.jpg"], "label": "x"}, "is str, expected a list"),
        ({"path": ["a.jpg"], "label": None}, "is NoneType, expected a list"),
        ({"path": ["a.jpg"], "label": [10**5000]}, "more than 1000 digits"),
    ],
)
def test_what_is_no_column(columns, words):
    with pytest.raises(DataError, match=words):
        read_sheet(columns)
