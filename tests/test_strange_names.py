"""Names of classes, runs and members that would be markup, formulas, links or lines of their own elsewhere."""

import io
import re
import tarfile
from pathlib import Path

import pytest

import ball_features
from ball_features import ExtractConfig, FitConfig, draw_smears, extract
from ball_features.bundles.bundle import read_bundle
from ball_features.config import CollectionConfig
from ball_features.dataset.manifest import scan
from ball_features.errors import ConfigError, DataError
from ball_features.reporting.card import write_card
from ball_features.reporting.paper import write_paper

NAMES = ("$\\foo{$ & $10", "<img src=x onerror=alert(1)> [b](http:evil) ![c](d)")


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_densenet):
    """A run on drawn smears of two classes with odd names."""
    folder = tmp_path_factory.mktemp("odd")
    draw_smears(folder / "smears", per_class=8, seed=1)
    rows = [
        f'{path.relative_to(folder / "smears")},"{NAMES[path.parent.name != "Benign"]}\n{chr(27)}[31m"'
        for path in sorted((folder / "smears").rglob("*.jpg"))
        if path.parent.name in ("Benign", "Pro")
    ]
    (folder / "sheet.csv").write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    settings = {"weights": "random", "input_px": 32, "precision": "fp32"}
    extract(
        folder / "smears",
        folder / "odd.h5",
        ExtractConfig(backbone=tiny_densenet, **settings),
        collection=CollectionConfig(sheet=str(folder / "sheet.csv")),
    )
    config = FitConfig(models=("logistic", "majority"), repeats=1)
    return ball_features.fit(folder / "odd.h5", config, out_root=folder / "runs", save="logistic")


def test_a_class_is_one_line_without_controls(run):
    odd = [name for name in read_bundle(run.bundles[0]).classes if name not in ("Early", "Pre")]
    assert len(odd) == 2
    assert all(re.fullmatch(r"[^\x00-\x1f\x7f-\x9f]+\\n\\x1b\[31m", name) for name in odd)


def test_images_that_only_their_names_keep_out_are_named(run, tmp_path):
    try:
        (tmp_path / "a\udcff.jpg").write_bytes(b"x")
    except (OSError, UnicodeError):
        pytest.skip("this disk takes no names that are not UTF-8")
    (tmp_path / "b.heic").write_bytes(b"x")
    with pytest.raises(DataError) as refused:
        ball_features.predict(run.bundles[0], tmp_path)
    assert "Found no image in" in str(refused.value)
    assert r"a\xff.jpg: its name is not UTF-8; rename it" in str(refused.value)
    assert "b.heic: is a .heic file, a kind that is not supported" in str(refused.value)


def test_a_card_shows_markup_as_text(run, tmp_path):
    card = write_card(read_bundle(run.bundles[0]), run.bundles[0], tmp_path / "card.md").read_text(encoding="utf-8")
    assert "onerror" in card
    assert "<img" not in card
    assert not re.search(r"(?<!\\)\[\w\]\(", card)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", card)


@pytest.mark.slow
@pytest.mark.filterwarnings("error::UserWarning")
def test_a_dollar_sign_is_no_formula_in_a_figure(run, tmp_path):
    files = write_paper(run.folder, tmp_path / "figures", formats=("svg",))
    shown = "".join(file.read_text(encoding="utf-8") for file in files if file.suffix == ".svg")
    assert "$\\foo{$" in shown


@pytest.mark.parametrize("name", ["a\nRun: elsewhere", "a\x1b[31m", "a\u202eb"])
def test_a_run_has_a_name_of_one_line(run, tmp_path, name):
    with pytest.raises(ConfigError, match="line breaks"):
        ball_features.fit(
            run.folder.parent.parent / "odd.h5", FitConfig(models=("majority",)), out_root=tmp_path, name=name
        )


def test_links_in_a_tar_file_are_files_or_named(tmp_path, smears):
    image = sorted(smears.rglob("*.jpg"))[0].read_bytes()
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        for name in ("A/x.jpg", "A/y.jpg", "B/z.jpg"):
            member = tarfile.TarInfo(name)
            member.size = len(image)
            archive.addfile(member, io.BytesIO(image))
        for name, kind, target in (
            ("B/hard.jpg", tarfile.LNKTYPE, "A/x.jpg"),
            ("B/soft.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    found = scan(Path(tmp_path / "images.tar"), anywhere=True)
    assert list(found.path) == ["A/x.jpg", "A/y.jpg", "B/hard.jpg", "B/z.jpg"]
    assert len({*found.sha256}) == 1
    assert [item.path for item in found.rejected] == ["B/soft.jpg"]
    assert "link" in found.rejected[0].reason
