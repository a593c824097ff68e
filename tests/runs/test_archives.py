"""Commands beside `extract` on images in archives and under addresses: as on the unpacked folder."""

import csv
import json
import re
import tarfile
import zipfile

import pytest
from typer.testing import CliRunner

from ball_features import FitConfig, evaluate, fit
from ball_features.audit.findings import audit
from ball_features.cli import app
from ball_features.dataset.grouping import read_groups
from ball_features.dataset.manifest import open_images, scan
from ball_features.dataset.sheet import read_sheet
from ball_features.dataset.synthetic import draw_smears
from ball_features.dataset.table_files import write_sheet
from ball_features.deployment.inputs import find_images
from ball_features.errors import DataError
from ball_features.extraction.segment import segment_folder
from ball_features.reporting.markup import Thumbnails


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    draw_smears(root, per_class=3, seed=4, size_px=64, duplicates=1, shared_fields=1)
    return root


@pytest.fixture(scope="module")
def packed(folder, tmp_path_factory):
    """The images in a zip file, below a folder that holds nothing else."""
    path = tmp_path_factory.mktemp("packed") / "smears.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.jpg")):
            archive.write(file, f"set/{file.relative_to(folder)}")
    return path


@pytest.mark.slow
def test_the_audit_of_an_address_is_that_of_its_folder(packed, folder):
    pytest.importorskip("fsspec")
    usual, found = audit(folder), audit(f"file://{packed}")
    assert found.path.tolist() == usual.path.tolist()
    for name in ("label", "overlay", "encoding", "block", "group"):
        assert getattr(found, name).tolist() == getattr(usual, name).tolist()
    assert (found.exact, found.pairs) == (usual.exact, usual.pairs)
    assert found.exact


@pytest.mark.slow
def test_the_page_of_an_audit_shows_images_of_an_archive(packed, tmp_path):
    page = tmp_path / "audit.html"
    sheet = tmp_path / "sheet.csv"
    names = scan(packed, anywhere=True).path
    sheet.write_text("".join(["path,patient\n", *(f"{name},P{row % 3}\n" for row, name in enumerate(names))]))
    done = CliRunner().invoke(
        app,
        ["audit", str(packed), "--out", str(tmp_path / "groups.csv"), "--page", str(page), "--sheet", str(sheet)],
    )
    assert done.exit_code == 0, done.output
    assert set(scan(packed, anywhere=True, sheet=sheet).columns["patient"]) == {"P0", "P1", "P2"}
    assert len(re.findall(r"data:image/jpeg;base64,", page.read_text())) >= 2
    assert len((tmp_path / "groups.csv").read_text().splitlines()) == len(names) + 1


def test_thumbnails_come_from_archives_too(folder, packed):
    name = scan(folder).path[0]
    expected = Thumbnails(folder).address(name)
    assert expected
    assert Thumbnails(open_images(packed)).addresses([name, "Benign/none.jpg"]) == [expected, ""]
    with pytest.raises(DataError, match="No folder or archive"):
        open_images(folder / "none")


def test_archives_can_be_predicted(folder, packed):
    found = find_images([str(packed)])
    assert [file.read_bytes() for file in found.files] == [
        (folder / str(file).split("/set/")[1]).read_bytes() for file in found.files
    ]
    assert len(found.files) == len(scan(folder).path)


@pytest.fixture(scope="module")
def bucket(object_store):
    object_store.mkdir("north")
    return object_store


@pytest.fixture(scope="module")
def bundle(small_cache, tmp_path_factory):
    config = FitConfig(models=("logistic",), repeats=1, test_size=0.3, val_size=0.3, train_views="plain")
    run = fit(small_cache, config, out_root=tmp_path_factory.mktemp("runs"), save="logistic")
    return run.folder / "models" / "logistic"


def figures(done):
    return done.scores.values, [(item.prediction, item.label, item.site) for item in done.images], done.rejected


def test_images_elsewhere_are_evaluated_where_they_lie(folder, packed, bundle, bucket, tmp_path, small_cache):
    """With a file that is no image, and a sheet; by the command too, from an object store."""
    own = tmp_path / "own"
    for file in folder.rglob("*.jpg"):
        (own / file.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        (own / file.relative_to(folder)).write_bytes(file.read_bytes())
    (own / "Pro" / "bad.png").write_bytes(b"no image")
    names = scan(own).path
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("".join(["path,site\n", *(f"{name},S{row % 2}\n" for row, name in enumerate(names))]))
    expected = figures(evaluate(bundle, own, sheet=sheet))
    assert len(expected[1]) == len(names) - 1 and [path for path, _ in expected[2]] == ["Pro/bad.png"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.write(own / name, name)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(own, "set")
    assert figures(evaluate(bundle, tmp_path / "a.zip", sheet=sheet)) == expected
    bucket.put(str(tmp_path / "a.tar"), "north/a.tar")
    bucket.put(str(own), "north/own", recursive=True)
    bucket.put(str(sheet), "north/sheet.csv")
    bucket.put(str(small_cache), "north/all.h5")
    assert figures(evaluate(bundle, "s3://north/own", sheet="s3://north/sheet.csv")) == expected
    done = CliRunner().invoke(
        app,
        [
            *("evaluate", str(bundle), "s3://north/a.tar", "--sheet", "s3://north/sheet.csv"),
            *("--out", str(tmp_path / "out"), "--json"),
        ],
    )
    assert done.exit_code == 0, done.output
    written = (tmp_path / "out" / "evaluation.json").read_text()
    assert json.loads(written)["accuracy"] == expected[0]["accuracy"]
    for text in (done.output, written, (tmp_path / "out" / "evaluation.html").read_text()):
        assert "SECRET" not in text and "s3://north/a.tar" in text
    cached = evaluate(bundle, "s3://north/all.h5")
    assert (cached.source, cached.accuracy) == ("s3://north/all.h5", evaluate(bundle, small_cache).accuracy)


@pytest.mark.parametrize("place", ["s3://north/none.tar", "s3://north/none", "nosuch://SECRET@a/b"])
def test_nothing_at_an_address_is_one_message(bundle, bucket, place, tmp_path):
    done = CliRunner().invoke(app, ["evaluate", str(bundle), place, "--out", str(tmp_path / "out")])
    assert done.exit_code == 1 and "Traceback" not in done.output and "SECRET" not in done.output
    assert done.output.count("\n") <= 3, done.output


def test_a_sheet_that_is_not_there_is_one_message(packed, tmp_path):
    pytest.importorskip("fsspec")
    with pytest.raises(DataError, match=r"No groups file or sheet can be read at memory://none\.csv"):
        scan(packed, anywhere=True, sheet="memory://none.csv")


@pytest.mark.slow
def test_an_archive_is_segmented_as_its_folder(folder, packed, tmp_path):
    pytest.importorskip("fsspec")
    expected = segment_folder(folder, tmp_path / "usual")
    found = segment_folder(f"file://{packed}", tmp_path / "out")
    assert found == expected
    for file in (tmp_path / "usual").rglob("*.*"):
        assert (tmp_path / "out" / file.relative_to(tmp_path / "usual")).read_bytes() == file.read_bytes()
    with pytest.raises(DataError, match="address"):
        segment_folder(packed, "s3://bucket/out")


def test_the_sheet_of_an_archive_is_that_of_its_folder(folder, packed, tmp_path):
    write_sheet(packed, tmp_path / "archive.csv")
    write_sheet(folder, tmp_path / "folder.csv")
    with (tmp_path / "archive.csv").open() as one, (tmp_path / "folder.csv").open() as two:
        rows = [{**row, "path": row["path"].removeprefix("set/")} for row in csv.DictReader(one)]
        assert rows == list(csv.DictReader(two))
    with pytest.raises(DataError, match="address"):
        write_sheet(packed, "s3://bucket/sheet.csv")


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["csv", "xlsx", "parquet"])
def test_sheets_under_addresses(ending, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    pandas = pytest.importorskip("pandas")
    pytest.importorskip({"csv": "csv", "xlsx": "openpyxl", "parquet": "pyarrow"}[ending])
    frame = pandas.DataFrame({"path": ["A/1.png", "B/2.png"], "patient": ["01", "02"]})
    write = {"csv": frame.to_csv, "xlsx": frame.to_excel, "parquet": frame.to_parquet}[ending]
    write(tmp_path / f"s.{ending}", index=False)
    fsspec.filesystem("memory").pipe_file(f"/sheets/s.{ending}", (tmp_path / f"s.{ending}").read_bytes())
    rows = read_sheet(f"memory://sheets/s.{ending}").rows_of(["A/1.png", "B/2.png"])
    assert rows.columns["patient"] == ("01", "02")
    values = read_groups(f"memory://sheets/s.{ending}", "patient", ["A/1.png", "B/2.png"])
    assert values.tolist() == ["01", "02"]
