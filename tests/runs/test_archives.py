"""Commands beside `extract` on images in archives and under addresses: as on the unpacked folder."""

import re
import zipfile

import pytest
from typer.testing import CliRunner

from ball_features.audit.findings import audit
from ball_features.cli import app
from ball_features.dataset.manifest import open_images, scan
from ball_features.dataset.synthetic import draw_smears
from ball_features.deployment.inputs import find_images
from ball_features.errors import DataError
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
