"""Files of the user's in the place of outputs: before a command, and those that come while it runs. All stay."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ball_features.audit import findings
from ball_features.cache import create_cache, merge, read_cache
from ball_features.cli import app
from ball_features.config import CollectionConfig, FitConfig
from ball_features.dataset import table_files
from ball_features.dataset.manifest import scan
from ball_features.deployment.answers import patients_beside, require_replaceable
from ball_features.errors import CacheError, DataError
from ball_features.extraction.segment import segment_folder
from ball_features.files import read_csv, read_json, write_csv, write_json
from ball_features.outputs import require_own_files, require_writable
from ball_features.runs import assess
from ball_features.runs.evaluate import evaluate
from ball_features.runs.fit import fit
from ball_features.runs.former_run import FormerRun, require_unread
from ball_features.runs.kept_rungs import KeptRungs
from ball_features.runs.label_check import check_labels
from ball_features.runs.ladder import ladder
from ball_features.runs.store import annotate
from tests.cache.test_checksums import contents
from tests.commands import ball
from tests.made import clouds, write_cache
from tests.test_files import OWN

links = pytest.mark.skipif(os.name == "nt", reason="links need rights there")
RNG = np.random.default_rng(0)
MINE = "mine, and no table of ball's\n"


def draw(path, size=24):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "in"
    for name in ("Benign/p.png", "Benign/q.png", "Pro/r.png"):
        draw(folder / name)
    return folder


@pytest.fixture
def out(tmp_path, images):
    """Pictures of the images."""
    segment_folder(images, tmp_path / "out")
    return tmp_path / "out"


def listed(out):
    return {row["path"]: row["area"] for row in read_csv(out / "nuclei.csv")}


@links
@pytest.mark.parametrize("known", [False, True], ids=["new", "again"])
def test_no_picture_goes_through_a_link_to_a_folder(tmp_path, images, out, known):
    before = {path: path.read_bytes() for path in images.rglob("*.png")}
    if not known:
        (out / "nuclei.csv").write_text("path,area,count,mean_area\n")
    (out / "Benign").rename(tmp_path / "moved")
    (out / "Benign").symlink_to("../in/Benign", target_is_directory=True)
    with pytest.raises(DataError, match=r"out/Benign is a link, and what it leads to would be written or replaced"):
        segment_folder(images, out)
    assert {path: path.read_bytes() for path in images.rglob("*.png")} == before


@pytest.mark.slow
@links
def test_a_link_to_a_folder_that_comes_while_pictures_are_written(tmp_path, images, out):
    before = {path: path.read_bytes() for path in images.rglob("*.png")}

    def lead_away(done, total):
        if done == 1:
            (out / "Pro").rename(tmp_path / "moved")
            (out / "Pro").symlink_to("../in/Pro", target_is_directory=True)

    for row in range(100):
        draw(images / f"Benign/x{row}.png")
        before[images / f"Benign/x{row}.png"] = (images / f"Benign/x{row}.png").read_bytes()
    with pytest.raises(DataError, match="was changed by another program"):
        segment_folder(images, out, progress=lead_away)
    assert {path: path.read_bytes() for path in images.rglob("*.png")} == before


@links
def test_a_folder_of_the_images_that_is_one_of_the_outputs(images, out):
    """A link in the input: its files are those that would be replaced."""
    for path in (images / "Pro").iterdir():
        path.unlink()
    (images / "Pro").rmdir()
    (images / "Pro").symlink_to(out / "Pro", target_is_directory=True)
    before = (out / "Pro" / "r.png").read_bytes()
    try:
        segment_folder(images, out)
    except DataError as error:
        assert "r.png is an input of this command and would be overwritten" in str(error)
    assert (out / "Pro" / "r.png").read_bytes() == before


def test_a_hard_link_to_an_image_is_no_output(images, out):
    (out / "Pro" / "r.png").unlink()
    os.link(images / "Pro" / "r.png", out / "Pro" / "r.png")
    with pytest.raises(DataError, match=r"r\.png is an input of this command"):
        segment_folder(images, out)


@pytest.mark.slow
def test_a_picture_that_the_table_does_not_list_is_the_users(images, out):
    (out / "Benign" / "mine.png").write_text(MINE)
    segment_folder(images, out, clean=True)  # it is in nobody's way
    draw(images / "Benign" / "mine.jpg")
    with pytest.raises(DataError, match=r"mine\.png exists, and nuclei\.csv does not list it as written by ball"):
        segment_folder(images, out)
    assert (out / "Benign" / "mine.png").read_text() == MINE
    assert all(listed(out).values())
    (out / "Benign" / "mine.png").unlink()
    assert segment_folder(images, out).images == 4
    assert segment_folder(images, out).images == 4


KILLED = """
import os, sys
from ball_features.extraction import segment
segment.core_count = lambda: 1
def stop(done, total): os.kill(os.getpid(), 9)
segment.segment_folder(sys.argv[1], sys.argv[2], progress=stop)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no signals there")
def test_a_killed_run_knows_its_pictures_from_the_users(tmp_path, images):
    for row in range(60):
        draw(images / f"Benign/x{row}.png", 200)
    out = tmp_path / "out"
    subprocess.run([sys.executable, "-c", KILLED, images, out], check=False)
    there = {path.relative_to(out).as_posix() for path in out.rglob("*.png")}
    assert 0 < len(there) < 63
    mine = out / "Pro" / "r.png"
    assert "Pro/r.png" not in there
    mine.parent.mkdir(exist_ok=True)
    whole = Image.open(images / "Pro" / "r.png").convert("RGB")
    for own in (Image.new("RGB", (8, 8), "red"), whole, Image.new("RGB", whole.size)):  # its image, and black
        own.save(mine)
        before = mine.read_bytes()
        with pytest.raises(DataError, match=r"r\.png exists, and nuclei\.csv does not list it"):
            segment_folder(images, out)
        assert mine.read_bytes() == before
    mine.unlink()
    assert segment_folder(images, out, clean=True).images == 63


def test_a_picture_of_an_image_that_cannot_be_read_for_once_stays_ours(images, out):
    whole = (images / "Pro" / "r.png").read_bytes()
    (images / "Pro" / "r.png").write_bytes(whole[:60])
    for _ in range(3):
        assert segment_folder(images, out).images == 2
    (images / "Pro" / "r.png").write_bytes(whole)
    assert segment_folder(images, out).images == 3
    assert all(listed(out).values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Pro/r.png", "nuclei.csv"])
def test_what_comes_while_pictures_are_written_stays(images, out, name):
    for row in range(100):
        draw(images / f"Benign/x{row}.png")

    def come(done, total):
        if done == 1:
            (out / name).unlink()
            (out / name).write_text(MINE)

    with pytest.raises(DataError, match=r"was changed by another program .*What was to be written is in .*-2\."):
        segment_folder(images, out, progress=come)
    assert (out / name).read_text() == MINE


def test_a_marker_of_the_same_command_vouches_for_no_file_that_came(tmp_path):
    require_own_files(tmp_path, ["predictions.csv"], "evaluation.json", "evaluation")
    (tmp_path / "predictions.csv").write_text(MINE)
    write_json(tmp_path / "evaluation.json", {"balanced_recall": 1, "cache_fingerprint": ""})
    with pytest.raises(DataError, match="was changed by another program"):
        write_csv(tmp_path / "predictions.csv", ("path",), [("a",)])
    assert (tmp_path / "predictions.csv").read_text() == MINE


def test_a_sheet_of_doubtful_labels(tmp_path):
    cache = write_cache(tmp_path / "own.h5", *clouds(20, distance=2.0))
    sheet, page = tmp_path / "lab.csv", tmp_path / "lab.html"
    with pytest.raises(DataError, match=r"lab\.csv was changed .* is in .*lab-2\.csv"):
        check_labels(
            cache,
            sheet,
            FitConfig(models=("logistic",), folds=3, jobs=1),
            page=page,
            progress=lambda *_: sheet.write_text(MINE),
        )
    assert sheet.read_text() == MINE
    assert len(list(read_csv(tmp_path / "lab-2.csv"))) == 80
    assert page.exists()


def test_a_sheet_to_fill_in(tmp_path, images, monkeypatch):
    sheet, listing = tmp_path / "s.csv", table_files.list_images

    def meanwhile(place):
        sheet.write_text(MINE)
        return listing(place)

    monkeypatch.setattr(table_files, "list_images", meanwhile)
    done = CliRunner().invoke(app, ["sheet", str(images), "--out", str(sheet)])
    assert isinstance(done.exception, DataError)
    assert "What was to be written is in " in str(done.exception)
    assert sheet.read_text() == MINE
    assert len(list(read_csv(tmp_path / "s-2.csv"))) == 3


TABLE = "path,note\nBenign/p.png,mine\n"


@pytest.mark.slow
@pytest.mark.parametrize("before", ["", TABLE], ids=["new", "a table of these images"])
@pytest.mark.parametrize("come", [MINE, TABLE.replace("mine", "edited")], ids=["no table", "a table of these images"])
def test_the_groups_of_an_audit(tmp_path, images, monkeypatch, before, come):
    groups, run = tmp_path / "g.csv", findings.audit
    if before:
        groups.write_text(before)

    def meanwhile(*args, **options):
        groups.write_text(come)
        return run(*args, **options)

    monkeypatch.setattr(findings, "audit", meanwhile)
    done = CliRunner().invoke(app, ["audit", str(images), "--out", str(groups), "--page", str(tmp_path / "g.html")])
    assert isinstance(done.exception, DataError)
    assert "g.csv was changed by another program while the command ran, and is left as it is" in str(done.exception)
    assert str(tmp_path / "g-2.csv") in str(done.exception)
    assert groups.read_text() == come
    assert [row["path"] for row in read_csv(tmp_path / "g-2.csv")] == ["Benign/p.png", "Benign/q.png", "Pro/r.png"]
    assert (tmp_path / "g.html").exists()


@pytest.mark.slow
def test_groups_that_come_while_an_assessment_audits(tmp_path, images, monkeypatch):
    cache = write_cache(tmp_path / "own.h5", *clouds(20, distance=2.0))
    groups, run = tmp_path / "groups.csv", findings.audit

    def meanwhile(*args, **options):
        groups.write_text(MINE)
        return run(*args, **options)

    monkeypatch.setattr(assess, "audit", meanwhile)
    for _ in range(2):
        with pytest.raises(DataError, match=r"groups-2\.csv|was not made by ball assess"):
            assess._audit(scan(images), read_cache(cache), groups, lambda *_: None)
        assert groups.read_text() == MINE
    assert (tmp_path / "groups-2.csv").exists()


def test_answers_for_patients_that_nobody_expected(tmp_path):
    out = tmp_path / "p.csv"
    require_replaceable(out, "--out", [])
    patients_beside(out).write_text(MINE)
    with pytest.raises(DataError, match="was changed by another program"):
        write_csv(patients_beside(out), ("patient",), [("a",)])
    assert patients_beside(out).read_text() == MINE


def test_a_file_in_the_place_of_a_cache_that_is_begun(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(OWN["cache"])
    require_writable(path, kind="cache")
    path.write_text(MINE)
    with pytest.raises(CacheError, match=r"was changed by another program .*a-2\.h5"):
        create_cache(path, contents())
    assert path.read_text() == MINE


def test_a_file_in_the_place_of_a_merged_cache(tmp_path, monkeypatch):
    shards = [write_cache(tmp_path / f"{name}.h5", *clouds(5, distance=2.0)) for name in "ab"]
    copy, out = sys.modules[merge.__module__]._copy, tmp_path / "m.h5"

    def meanwhile(*args):
        copy(*args)
        out.write_text(MINE)

    monkeypatch.setattr(sys.modules[merge.__module__], "_copy", meanwhile)
    with pytest.raises(CacheError, match=r"and stays. The merged cache is .*m-2\.h5"):
        merge(shards, out)
    assert out.read_text() == MINE
    assert (tmp_path / "m-2.h5").stat().st_size > 1000


@links
def test_kept_steps_behind_a_link_are_somebody_elses(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "arrays.npz").write_text(MINE)
    (tmp_path / ".ladder.rungs").symlink_to("mine", target_is_directory=True)
    kept = KeptRungs(tmp_path / ".ladder.rungs", "a", 2)
    kept.keep_only((), ())
    kept.clear()
    assert (tmp_path / "mine" / "arrays.npz").read_text() == MINE


@pytest.mark.parametrize("forget", [lambda kept: kept.keep_only((), ()), KeptRungs.clear], ids=["keep", "clear"])
def test_files_of_others_among_kept_steps(tmp_path, forget):
    folder = tmp_path / ".ladder.rungs"
    (folder / "deep").mkdir(parents=True)
    mine = ["user.npz", "notes.txt", "0.npz", "deep/a.npz", f"{'0' * 32}.npz.txt", f"{'0' * 32}.npz"]
    for name in mine:
        (folder / name).write_text(MINE)
    forget(KeptRungs(folder, "a", 2))
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == sorted(mine)
    for name in mine:
        (folder / name).unlink()
    (folder / "deep").rmdir()
    KeptRungs(folder, "a", 2).clear()
    assert not folder.exists()


@pytest.mark.slow
def test_files_of_others_in_a_run_that_is_replaced(tmp_path):
    """They lie where they lay, with those that come to names of the run aside and told; the note of the run stays."""
    (tmp_path / "in").mkdir()
    images = write_cache(tmp_path / "in" / "c.h5", *clouds(20, distance=2.0))
    config = FitConfig(models=("majority",), repeats=1, folds=3, groups=str(tmp_path / "groups.csv"))
    rows = enumerate(read_cache(images, embeddings=False).path)
    write_csv(tmp_path / "groups.csv", ("path", "group"), [(path, row // 4) for row, path in rows])
    run = tmp_path / "ladder"
    ladder(images, config, out_root=tmp_path, keep=True)
    ours = {path.name for path in run.iterdir()}
    annotate(run, "of mine")
    draw(run / "crops" / "a.png")
    (run / "sheet.csv").write_text(MINE)
    crop = (run / "crops" / "a.png").read_bytes()
    for _ in range(2):
        ladder(images, config, out_root=tmp_path, keep=True)
        assert (run / "sheet.csv").read_text() == MINE
        assert (run / "crops" / "a.png").read_bytes() == crop
        assert {path.name for path in run.iterdir()} == {*ours, "sheet.csv", "crops"}
        assert "Note: of mine" in (run / "report.html").read_text(encoding="utf-8")
        assert not list(tmp_path.glob("ladder-*"))
    (run / "report.html").unlink()
    draw(run / "report.html" / "b.png")
    done = ladder(images, config, out_root=tmp_path, keep=True)
    assert (tmp_path / "ladder-2" / "report.html" / "b.png").exists()
    assert any("ladder-2 has files that lay in the run" in note for note in done.notes)
    assert {path.name for path in run.iterdir()} == {*ours, "sheet.csv", "crops"}
    (run / "run.json").write_text("{}")
    assert FormerRun.find(run) is None


@pytest.mark.slow
@pytest.mark.parametrize("recorded", [True, False], ids=["checksums", "earlier"])
def test_files_of_the_user_under_names_of_a_run_that_is_replaced(tmp_path, recorded):
    cache = write_cache(tmp_path / "c.h5", *clouds(20, distance=2.0))
    rows = enumerate(read_cache(cache, embeddings=False).path)
    write_csv(tmp_path / "groups.csv", ("path", "group"), [(path, row // 4) for row, path in rows])
    config = FitConfig(models=("majority",), repeats=1, folds=3, groups=str(tmp_path / "groups.csv"))
    run = tmp_path / "ladder"
    ladder(cache, config, out_root=tmp_path, keep=True)
    ours = sorted(path.name for path in run.iterdir())
    assert len(ours) == 7
    lasting = sorted(read_json(run / "run.json")["files"])
    if not recorded:
        details = read_json(run / "run.json")
        del details["files"]
        write_json(run / "run.json", details)
    for number, name in enumerate((name for name in ours if name != "run.json"), 2):
        changed = (run / name).read_text(encoding="utf-8") + "\n"
        mine = changed if recorded and name in lasting else MINE
        (run / name).write_text(mine, encoding="utf-8")
        done = ladder(cache, config, out_root=tmp_path, keep=True)
        assert done.folder == run
        assert (tmp_path / f"ladder-{number}" / name).read_text(encoding="utf-8") == mine
        assert [path.name for path in (tmp_path / f"ladder-{number}").iterdir()] == [name]
        assert any(f"ladder-{number} has files that lay in the run" in note for note in done.notes)
        assert sorted(path.name for path in run.iterdir()) == ours
        if not recorded:
            write_json(
                run / "run.json",
                {name: value for name, value in read_json(run / "run.json").items() if name != "files"},
            )
    ladder(cache, config, out_root=tmp_path, keep=True)
    assert len(list(tmp_path.glob("ladder-*"))) == 6


@pytest.mark.slow
def test_a_ladder_of_its_own_leaves_the_kept_steps_of_another(tmp_path):
    cache = write_cache(tmp_path / "c.h5", *clouds(20, distance=2.0))
    rows = enumerate(read_cache(cache, embeddings=False).path)
    write_csv(tmp_path / "groups.csv", ("path", "group"), [(path, row // 4) for row, path in rows])
    config = FitConfig(models=("majority",), repeats=1, folds=3, groups=str(tmp_path / "groups.csv"))
    ladder(cache, config, out_root=tmp_path, keep=True)
    steps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / ".ladder.rungs").iterdir()}
    assert steps
    assert ladder(cache, config, out_root=tmp_path).folder == tmp_path / "ladder-2"
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / ".ladder.rungs").iterdir()} == steps
    ladder(cache, config, out_root=tmp_path / "alone")
    assert not (tmp_path / "alone" / ".ladder.rungs").exists()


def test_a_table_of_the_run_that_is_replaced_is_no_sheet(tmp_path, images):
    run = tmp_path / "out" / "ladder"
    run.mkdir(parents=True)
    write_json(run / "run.json", {"kept": True})
    for name in ("splits.csv", "sheet.csv"):
        (run / name).write_text("path,label\nBenign/p.png,Benign\nBenign/q.png,Benign\nPro/r.png,Pro\n")
    collection = CollectionConfig(sheet=(str(run / "splits.csv"),))
    with pytest.raises(DataError, match="is a file of the run that this command replaces"):
        assess.assess(images, tmp_path / "out", collection=collection)
    assert not (tmp_path / "out" / "cache.h5").exists()
    require_unread(run, [str(run / "sheet.csv"), "s3://a/splits.csv", tmp_path / "splits.csv"])


@pytest.mark.slow
def test_no_output_replaces_a_table_that_the_command_reads(small_cache, smears, tmp_path):
    """Also where `ball` chooses the name of the output, and through a link."""
    run = fit(small_cache, FitConfig(models=("logistic",), repeats=1), out_root=tmp_path, name="r", save="logistic")
    bundle, out = run.folder / "models" / "logistic", tmp_path / "out"
    first = ball("evaluate", bundle, "--cache", small_cache, "--out", out)
    assert first.returncode == 0, first.stderr
    sheet = tmp_path / "link.csv"
    sheet.symlink_to(out / "predictions.csv")
    answers = tmp_path / "p.csv"
    lines = [f"{path.relative_to(smears).as_posix()},Pre" for path in smears.rglob("*.jpg")]
    answers.write_text("\n".join(["path,predicted,p_Pre", *(f"{line},1" for line in lines)]), encoding="utf-8")
    before = {path: path.read_bytes() for path in (out / "predictions.csv", answers)}
    for words in (
        ("evaluate", bundle, "--cache", small_cache, "--sheet", sheet, "--out", out),
        ("evaluate", bundle, "--cache", small_cache, "--sheet", out / "predictions.csv", "--out", out),
        ("predict", bundle, smears, "--sheet", answers, "--out", answers),
    ):
        done = ball(*words, cwd=tmp_path)
        assert done.returncode == 2, words
        assert "is an input of this command and would be overwritten" in done.stderr, (words, done.stderr)
        assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(DataError, match="is an input of this command"):
        evaluate(bundle, small_cache, out=out, collection=CollectionConfig(sheet=(str(sheet),)))
