"""Pictures on pages are those of the images that were embedded, or are left out with a note."""

import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ball_features.audit import findings
from ball_features.bundles.bundle import read_bundle
from ball_features.cache import read_cache
from ball_features.cli import app
from ball_features.config import FitConfig
from ball_features.dataset.synthetic import draw_smears
from ball_features.errors import DataError
from ball_features.reporting.joint import write_joint_report
from ball_features.reporting.markup import Thumbnails
from ball_features.runs.fit import fit
from ball_features.runs.kept_cache import cache_of_bundle

_CHANGED = r"(\d+) pictures? (?:is|are) left out: the file there is no longer [a-z ]+ embedded \(first: (.+?)\)\."
_GONE = r"(\d+) pictures? (?:is|are) left out: there is no image that can be read \(first: (.+?)\)\."
_UNKNOWN = "found by name alone"


@pytest.fixture(scope="module")
def run(small_cache, tmp_path_factory):
    return fit(small_cache, FitConfig(models=("logistic",), repeats=1), out_root=tmp_path_factory.mktemp("runs"))


@pytest.fixture
def images(smears, tmp_path):
    return shutil.copytree(smears, tmp_path / "images")


@pytest.fixture(params=["report", "labels"])
def page_of(request, run, small_cache, tmp_path):
    """Function from a folder of images to (page, what the command says) of one of the two commands."""

    def report(images):
        done = CliRunner().invoke(app, ["report", str(run.folder), "--thumbnails", str(images)])
        assert done.exit_code == 0, done.output
        return (run.folder / "report.html").read_text(encoding="utf-8"), done.output

    def labels(images):
        page, out = tmp_path / "labels.html", tmp_path / "labels.csv"
        out.unlink(missing_ok=True)
        fitted = ["--models", "logistic", "--folds", "2", "--jobs", "1"]
        files = ["--out", str(out), "--page", str(page), "--images", str(images)]
        done = CliRunner().invoke(app, ["labels", str(small_cache), *fitted, *files])
        assert done.exit_code == 0, done.output
        return page.read_text(encoding="utf-8"), done.output

    return {"report": report, "labels": labels}[request.param]


def addresses(page):
    return set(re.findall(r"data:image/jpeg;base64,[^\"',\\]+", page))


def exchange(one, two):
    kept = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(kept)


@pytest.mark.slow
def test_the_page_of_untouched_images_is_the_same_to_the_byte(page_of, smears, images):
    page, said = page_of(smears)
    assert page_of(images)[0] == page
    assert len(addresses(page)) > 20
    for text in (page, said):
        assert "left out: the" not in text
        assert _UNKNOWN not in text


@pytest.mark.slow
def test_pictures_of_exchanged_files_are_left_out(page_of, smears, images):
    files = [sorted((images / name).iterdir())[0] for name in ("Benign", "Pro")]
    names = {file.relative_to(images).as_posix() for file in files}
    page, _ = page_of(smears)
    exchange(*files)
    shown, said = page_of(images)
    left = {Thumbnails(smears).address(name, side) for name in names for side in (72, 160)} & addresses(page)
    assert left
    assert addresses(page) - addresses(shown) == left
    assert not addresses(shown) - addresses(page)
    for text in (shown, said):
        (number, first), *others = re.findall(_CHANGED, " ".join(text.split()))
        assert (int(number), first in names, others) == (len(left), True, [])


def test_a_folder_of_other_images_with_the_same_names_shows_none(page_of, images):
    files = sorted(images.rglob("*.*"))
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, contents[1:] + contents[:1], strict=True):
        file.write_bytes(content)
    page, said = page_of(images)
    assert not addresses(page)
    for text in (page, said):
        assert int(re.findall(_CHANGED, " ".join(text.split()))[0][0]) > 20


@pytest.mark.slow
def test_a_picture_that_is_gone_is_told(page_of, smears, images):
    file = sorted((images / "Early").iterdir())[0]
    name = file.relative_to(images).as_posix()
    page, _ = page_of(smears)
    file.unlink()
    shown, said = page_of(images)
    assert len(addresses(page) - addresses(shown)) == 1
    for text in (shown, said):
        assert re.findall(_GONE, " ".join(text.split())) == [("1", name)]
        assert "no longer" not in " ".join(re.findall(r"left out[^.]*", text))


def test_a_run_without_its_cache_says_that_pictures_were_not_compared(run, smears, tmp_path):
    told = []
    page = write_joint_report([run.folder], tmp_path / "all.html", [None], smears, told.append)
    assert addresses(page.read_text(encoding="utf-8"))
    assert len(told) == 1
    assert _UNKNOWN in told[0]
    assert told[0] in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_runs_on_one_page_compare_with_their_own_caches(run, small_cache, smears, images, tmp_path):
    cache, told = read_cache(small_cache), []
    write_joint_report([run.folder, run.folder], tmp_path / "all.html", [cache, None], smears, told.append)
    assert [_UNKNOWN in note for note in told] == [True]
    names = [file.relative_to(images).as_posix() for file in sorted(images.rglob("*.*"))[:2]]
    exchange(*(images / name for name in names))
    loose = Thumbnails(images)
    strict = loose.of(cache)
    assert [bool(loose.address(name)) for name in names] == [True, True]
    assert [bool(strict.address(name)) for name in names] == [False, False]
    assert len(strict.notes()) == len(loose.notes()) == 1


def test_each_file_is_read_once(smears, small_cache, monkeypatch):
    from ball_features.reporting import markup

    read, cache = [], read_cache(small_cache)
    monkeypatch.setattr(markup, "read_file", lambda file, own=markup.read_file: read.append(file) or own(file))
    pictures = Thumbnails(smears)
    for again in (pictures.of(cache), pictures.of(cache)):
        assert all(again.addresses(cache.path.tolist()))
        assert again.notes() == []
    assert len(read) == len(cache.path)


@pytest.mark.slow
def test_a_model_in_its_run_finds_the_hashes_of_its_images(small_cache, images, tmp_path):
    config = FitConfig(models=("logistic",), repeats=1, test_size=0.3, val_size=0.3, train_views="plain")
    cache = Path(shutil.copy(small_cache, tmp_path / "own.h5"))
    made = fit(cache, config, out_root=tmp_path / "runs", save="logistic").folder / "models" / "logistic"
    bundle = read_bundle(made)
    names = list(bundle.train_path[:2])
    exchange(*(images / name for name in names))
    pictures = Thumbnails(images, cache_of_bundle(made, bundle))
    assert pictures.addresses(names) == ["", ""]
    assert all(pictures.addresses(bundle.train_path[2:]))
    assert cache_of_bundle(shutil.copytree(made, tmp_path / "a" / "models" / "b"), bundle) is None
    cache.unlink()
    assert cache_of_bundle(made, bundle) is None


@pytest.fixture
def audited(tmp_path):
    """Folder of smears, each with a copy, and a function that audits it while something is done in it before a step."""
    folder = tmp_path / "smears"
    draw_smears(folder, per_class=4, seed=3, near_duplicates=1)
    for name in ("Benign", "Pro"):
        first = sorted((folder / name).iterdir())[0]
        shutil.copy(first, first.with_name("again.jpg"))

    def audit(monkeypatch, step, change=lambda: None):
        page = tmp_path / "audit.html"
        for old in (page, tmp_path / "groups.csv"):
            old.unlink(missing_ok=True)
        own = getattr(findings, step)
        monkeypatch.setattr(findings, step, lambda *given, **named: (change(), own(*given, **named))[1])
        monkeypatch.setattr(findings, "shortcut_accuracy", lambda *_: {})  # takes most of the time, and reads nothing
        out = str(tmp_path / "groups.csv")
        done = CliRunner().invoke(app, ["audit", str(folder), "--out", out, "--page", str(page)])
        monkeypatch.setattr(findings, step, own)
        return done, page.read_text(encoding="utf-8") if page.exists() else ""

    return folder, audit


def _changes(folder):
    files = [sorted((folder / name).iterdir())[0] for name in ("Benign", "Pro")]
    one, two = files
    return files, {
        "exchanged": lambda: exchange(one, two),
        "changed": lambda: [file.write_bytes(file.read_bytes() + b" ") for file in files],
        "removed": lambda: [file.unlink() for file in files],
        "a folder": lambda: [(file.unlink(), file.mkdir()) for file in files],
    }


@pytest.mark.slow
@pytest.mark.parametrize("change", ["exchanged", "changed", "removed"])
def test_the_page_of_an_audit_shows_what_was_audited(audited, monkeypatch, change):
    """Files that come to another content between the audit and its page show nothing under their names."""
    folder, audit = audited
    done, page = audit(monkeypatch, "write_groups")
    assert done.exit_code == 0, done.output
    assert "left out" not in page + done.output
    files, changes = _changes(folder)
    names = [file.relative_to(folder).as_posix() for file in files]
    done, shown = audit(monkeypatch, "write_groups", changes[change])
    assert done.exit_code == 0, done.output
    before, after = (set(re.findall(r'alt="([^",]+)(?:, enlarged)?" src="([^"]+)"', text)) for text in (page, shown))
    assert {name for name, _ in before} > set(names)
    assert after == {(name, address) for name, address in before if name not in names}
    for name in names:
        assert f'alt="{name}' not in shown
        assert f"<span>{name} (left out)</span>" in shown
    reason = {"removed": "there is no image", "a folder": "there is no image"}.get(change, "no longer the one")
    for text in (shown, " ".join(done.output.split())):
        assert re.findall(r"(\d+) pictures are left out: (?:the file )?there is (no [a-z]+(?: the one)?)", text) == [
            ("2", reason.removeprefix("there is "))
        ]
        assert f"(first: {names[0]})" in text


@pytest.mark.slow
@pytest.mark.parametrize("change", ["exchanged", "removed", "a folder"])
def test_files_that_change_before_an_audit_reads_them_are_rejected(audited, monkeypatch, change):
    """Another content is never described or written down under the name of an image."""
    folder, audit = audited
    files, changes = _changes(folder)
    done, page = audit(monkeypatch, "collect", changes[change])
    assert done.exit_code == 0, done.output
    assert "2 files that cannot be decoded" in " ".join(done.output.split())
    rows = (folder.parent / "groups.csv").read_text(encoding="utf-8")
    for file in files:
        name = file.relative_to(folder).as_posix()
        assert f"{name}," not in rows
        assert f'alt="{name}' not in page


@pytest.mark.slow
@pytest.mark.parametrize("change", ["exchanged", "removed", "a folder"])
def test_files_that_change_before_an_audit_compares_them_end_it(audited, monkeypatch, change):
    folder, audit = audited
    files, changes = _changes(folder)
    done, page = audit(monkeypatch, "find_pairs", changes[change])
    assert isinstance(done.exception, DataError)
    why = {"exchanged": "changed while it was read", "removed": "cannot be read (No such file or directory)"}
    reason = (
        f"{why.get(change, 'is no regular file')}, after it was read before. Audit the images again once they stay."
    )
    assert str(done.exception) in [f"{file} {reason}" for file in files]
    assert not page
    assert not (folder.parent / "groups.csv").exists()
