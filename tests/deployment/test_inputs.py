"""Which images a prediction is asked of: each once, by its very name, none passed over without a word."""

import json
import os
import tarfile
import threading
import zipfile

import pytest
from typer.testing import CliRunner

from ball_features import FitConfig, fit, predict
from ball_features.cli import app
from ball_features.deployment.inputs import find_images


@pytest.fixture(scope="module")
def bundle(small_cache, tmp_path_factory):
    config = FitConfig(models=("logistic",), repeats=1)
    run = fit(small_cache, config, out_root=tmp_path_factory.mktemp("runs"), save="all")
    return run.folder / "models" / "logistic"


@pytest.fixture
def image(smears):
    return find_images([str(smears)]).files[0]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["lines", "lines of Windows", "NUL"])
def test_names_on_standard_input_are_taken_as_they_are(bundle, image, tmp_path, form):
    names = [" blank.png", "end .png", "a\u2028b.png", "a\rb.png", "plain.png"]
    for name in names:
        (tmp_path / name).write_bytes(image.read_bytes())
    listed = [str(tmp_path / name) for name in names]
    text = {"lines": "\n".join(listed), "lines of Windows": "\r\n".join(listed), "NUL": "\0".join([*listed, ""])}[form]
    done = CliRunner().invoke(app, ["predict", str(bundle), "-", "--json"], input=text.encode())
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)["predictions"]) == len(names)
    assert json.loads(done.stdout)["rejected"] == []


def test_an_image_that_is_named_twice_is_asked_for_once(image, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(image, "a.png")
    (tmp_path / "b.png").write_bytes(image.read_bytes())
    monkeypatch.chdir(tmp_path)
    names = ["a.zip", str(tmp_path / "a.zip"), "./a.zip", "b.png", str(tmp_path / "b.png"), "*.png"]
    assert [str(file) for file in find_images(names).files] == [f"{tmp_path}/a.zip/a.png", "b.png"]


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz"])
def test_images_beside_an_archive_are_taken_and_the_archive_is_named(image, tmp_path, ending):
    (tmp_path / "b.png").write_bytes(image.read_bytes())
    (tmp_path / f"more.{ending}").write_bytes(b"of images")
    found = find_images([str(tmp_path)])
    assert found.files == [tmp_path / "b.png"]
    assert any(f"Archives beside images are not read: {tmp_path}/more.{ending}" in remark for remark in found.remarks)


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_sheet_may_come_from_a_pipe(bundle, smears, tmp_path):
    pipe = tmp_path / "sheet.csv"
    os.mkfifo(pipe)
    images = find_images([str(smears)]).files[:4]
    rows = "\n".join(["path,patient", *(f"{path},P{number % 2}" for number, path in enumerate(images))])
    threading.Thread(target=lambda: pipe.write_text(rows), daemon=True).start()
    assert predict(bundle, images, sheet=pipe).patient == ("P0", "P1", "P0", "P1")


def test_a_name_in_an_archive_that_is_not_utf_8_is_rejected(image, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        archive.add(image, "é.jpg")
        archive.add(image, "e.jpg")
    found = find_images([str(tmp_path / "a.tar")])
    assert [file.name for file in found.files] == ["e.jpg"]
    assert [item.reason for item in found.rejected] == ["its name is not UTF-8; rename it"]


def test_a_list_names_no_address(bundle):
    """It may be a stranger's; nothing is opened."""
    done = CliRunner().invoke(app, ["predict", str(bundle), "-", "--json"], input="ftp://127.0.0.1:9/x.png\n")
    assert "names the address ftp://127.0.0.1:9/x.png" in str(done.exception)
