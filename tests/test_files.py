"""What cannot be written is said before the work, and trying leaves nothing behind."""

import csv
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ball_features import ExtractConfig, FitConfig, extract, fit
from ball_features.cache import lock_cache, merge
from ball_features.cli import app
from ball_features.demo import demo
from ball_features.errors import CacheBusyError, CacheError, DataError
from ball_features.extraction.update import require_file_name
from ball_features.files import (
    escaped_controls,
    joined_names,
    plain_cell,
    read_csv,
    replacing,
    require_apart,
    safe_cell,
    temporary_folder,
    this_host,
    write_cells,
    write_csv,
    write_json,
    write_text,
)
from ball_features.output_kinds import OUTPUTS
from ball_features.outputs import (
    remove_former,
    require_folder,
    require_free,
    require_outside_bundles,
    require_own_files,
    require_untouched,
    require_writable,
)
from ball_features.reporting.mlflow_store import store_path
from ball_features.runs.compare import compare
from ball_features.runs.label_check import check_labels
from ball_features.runs.ladder import ladder
from ball_features.runs.new_folder import NewFolder
from ball_features.runs.tune import tune


def test_files(tmp_path):
    require_writable(None)
    require_writable(tmp_path / "new" / "groups.csv")
    assert (tmp_path / "new").is_dir()
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "groups.csv", tmp_path / ("x" * 300)):
        with pytest.raises(DataError, match=r"cannot be written .*Give another output file"):
            require_writable(path)
    assert not (tmp_path / "new" / "groups.csv").exists()  # trying leaves nothing behind
    with pytest.raises(DataError, match=r"cannot be written"):
        require_writable(Path("/proc/groups.csv"))  # whose permissions allow it
    image = tmp_path / "smear.JPG"
    image.write_bytes(b"pixels")
    with pytest.raises(DataError, match=r"is an image and would be overwritten\. Give another output file"):
        require_writable(image)
    assert image.read_bytes() == b"pixels"


OWN = {
    "cache": b"\x89HDF\r\n\x1a\n....fingerprint schema_version embeddings committed",
    "groups": b"path,group,series,batch\na.jpg,1,s,b\n",
    "predictions": b"path,predicted,p_a\n",
    "answers": b'{\n "bundle": "b", "model": "m", "cache_fingerprint": "f"}',
    "evaluated predictions": b"path,label,true,status,predicted,p_a,set,covered,distance\n",
    "patients table": b"model,repeat,patient,images,label,predicted,p_a\n",
    "patient answers": b"patient,images,unusual,predicted,p_a\n",
    "evaluation": b'{\n "accuracy": 0.9, "balanced_recall": 0.8, "bundle": {"cache_fingerprint": "f"}}',
    "verdict": b'[\n {"code": "chance", "severity": "good", "numbers": {}}]',
    "audit": b'{\n  "images": "f", "evidence": {}}',
    "page": b"<!doctype html>Content-Security-Policy style-src 'sha256-A='<style>a</style>",
    "card": b"# Model card: mlp\n\nMade today with ball 0.1.0.\n",
    "captions": b"# Captions\n\n## table.tex, table.csv\n",
    "nuclei table": b"path,area,count,mean_area\n",
    "embeddings table": b"path,label,sha256,view,e0\n",
    "parquet": b'PAR1....{"weights_sha256": "a"}PAR1',
    "onnx": b"\x08\x0a\x12\x04ball",
}
FOREIGN = (
    b"my notes", b"\x89HDF\r\n\x1a\nmy measurements", b"path,predicted\na.jpg,cat\n", b'{"mine": 1}',
    b"<!doctype html><style>p{}</style><p>My page", b"---\nlicense: mit\n", b"PAR1PAR1", b"\x08\x08\x12\x07pytorch",
    b"7", b"[]", b"no\n",
)  # fmt: skip


@pytest.mark.parametrize("kind", OUTPUTS)
def test_an_output_replaces_its_own_kind_only(tmp_path, kind):
    path = tmp_path / "out"
    for content in (b"", OWN[kind]):
        path.write_bytes(content)
        require_writable(path, kind=kind)
    for content in (*FOREIGN, *(other for name, other in OWN.items() if name != kind)):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"no {kind} file that ball has written. Give another page"):
            require_writable(path, "page", kind=kind)
        assert path.read_bytes() == content


@pytest.mark.parametrize(
    "header",
    [
        "path,predicted,p_a,set,distance,unusual,pathologist",
        'path,predicted,"p_a,b",checked by',
        "path,predicted,p_" + "a" * 4000 + ",seen,p_b",
    ],
)
def test_a_table_that_somebody_has_extended_is_not_replaced(tmp_path, header):
    path = tmp_path / "p.csv"
    path.write_text(f"{header}\n")
    with pytest.raises(DataError, match="is no predictions file that ball has written"):
        require_writable(path, kind="predictions")
    path.write_text('path,predicted,"p_a\tb, c",p_=d,set,distance,unusual,patient\r\n')
    require_writable(path, kind="predictions")


def test_an_output_never_replaces_an_input(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(OWN["cache"])
    (tmp_path / "link").symlink_to(path)
    for out in (path, tmp_path / "link", tmp_path / "." / "a.h5"):
        with pytest.raises(DataError, match="input of this command"):
            require_writable(out, kind="cache", inputs=(None, tmp_path, path))
    require_writable(path, kind="cache", inputs=(tmp_path / "b.h5",))


def test_nothing_is_written_into_a_bundle(tmp_path):
    (tmp_path / "bundle.json").write_text("{}")
    for check in (
        lambda: require_writable(tmp_path / "a.csv", "page"),
        lambda: require_writable(tmp_path / "bundle.json", "page"),
        lambda: require_folder(tmp_path, "page"),
    ):
        with pytest.raises(DataError, match=r"holds a saved model, .*Give another page"):
            check()
    with pytest.raises(DataError, match="holds a saved model"):
        require_own_files(tmp_path, ["predictions.csv"], "evaluation.json", "evaluation")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.json"]


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("bundle.json", "reference.safetensors"):
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize(
    "place", ["sub/a", "sub/sub/a", "../link/sub/a", "../link.csv", "sub/../a", "../link/../model/a"]
)
def test_nothing_is_written_below_a_bundle(tmp_path, model, place):
    (tmp_path / "link").symlink_to(model, target_is_directory=True)
    (tmp_path / "link.csv").symlink_to(model / "x" / "a.csv")
    (model / "sub").mkdir()
    out = model / place
    for check in (
        lambda: require_writable(out, "page"),
        lambda: require_free(out, "page"),
        lambda: require_folder(out, "page"),
        lambda: require_own_files(out, ["predictions.csv"], "evaluation.json", "evaluation"),
        lambda: merge([tmp_path / "a.h5", tmp_path / "b.h5"], out),
        lambda: require_file_name(out),
    ):
        with pytest.raises((DataError, CacheError), match=r"model holds a saved model, |link.csv exists"):
            check()
    assert sorted(path.name for path in model.rglob("*")) == ["bundle.json", "reference.safetensors", "sub"]


def test_a_store_of_mlflow_lies_in_no_bundle(model):
    for form in ("{}/m", "file:{}/m", "file://{}/m", "sqlite:///{}/m.db"):
        with pytest.raises(DataError, match="model holds a saved model"):
            require_outside_bundles(store_path(form.format(model)), "--mlflow")
    require_outside_bundles(store_path("https://mlflow.example/bundle"))


def test_an_error_of_a_library_that_has_no_number_is_told(tmp_path):
    with pytest.raises(DataError, match=r"cannot be written to .* \(encoder error\)"), NewFolder(tmp_path, "a"):
        raise OSError("encoder error")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_others_with_a_file_named_as_a_bundle_s(tmp_path):
    """Above an output; nothing but its name makes it a bundle's."""
    (tmp_path / "bundle.json").write_text("{}")
    require_folder(tmp_path / "a" / "b")
    with pytest.raises(DataError, match="holds a saved model"):
        require_folder(tmp_path / "c.csv")


@pytest.mark.slow
def test_commands_write_nothing_below_a_bundle(tmp_path, model, small_cache, smears):
    below = model / "sub" / "a"
    for command in (
        ("merge", small_cache, small_cache, "--out", below),
        ("extract", smears, "--weights", "random", "--out", below),
        ("fit", small_cache, "--models", "logistic", "--out", below, "--name", "x"),
        ("fit", small_cache, "--protocol", "ladder", "--out", below),
        ("fit", small_cache, "--protocol", "learning-curve", "--out", below),
        ("tune", small_cache, "--out", below),
        ("segment", smears, "--out", below),
        ("assess", smears, "--out", below),
        ("demo", "--out", below),
        ("sheet", smears, "--out", below),
        ("labels", small_cache, "--out", below),
        ("labels", small_cache, "--out", tmp_path / "l.csv", "--page", below),
        ("audit", smears, "--out", below),
        ("audit", smears, "--out", tmp_path / "g.csv", "--page", below),
        ("predict", model, smears, "--out", below.with_suffix(".csv")),
        ("export", model, "--card", below),
        ("export", small_cache, "--csv", below),
        ("report", tmp_path, "--figures", below),
        ("report", tmp_path, "--out", below),
    ):
        done = CliRunner().invoke(app, [str(word) for word in command])
        assert isinstance(done.exception, DataError) and "model holds a saved model" in str(done.exception), command
    assert {path.name for path in model.rglob("*")} == {"bundle.json", "reference.safetensors"}


SAME = [("x", "x"), ("x", "./x"), ("x", "sub/../x"), ("x", "link/x"), ("x", "to_x"), ("x.md", "X.md"), ("é", "e\u0301")]


@pytest.mark.parametrize(("one", "other"), SAME, ids=[f"{one} {other}" for one, other in SAME])
def test_two_outputs_of_one_command_are_two_files(tmp_path, small_cache, smears, model, one, other):
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to(".", target_is_directory=True)
    (tmp_path / "to_x").symlink_to("x")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    one, other = f"{tmp_path}/{one}", f"{tmp_path}/{other}"
    for command, message in (
        (("export", small_cache, "--csv", one, "--parquet", other), "for both --parquet and --csv"),
        (("export", model, "--card", one, "--onnx", other), "for both --onnx and --card"),
        (("labels", small_cache, "--out", one, "--page", other), "for both --out and --page"),
        (("audit", smears, "--out", one, "--page", other), "for both --out and --page"),
    ):
        done = CliRunner().invoke(app, [str(word) for word in command])
        assert isinstance(done.exception, DataError) and message in str(done.exception), command
    with pytest.raises(DataError, match="for both sheet and page"):
        check_labels(small_cache, Path(one), page=Path(other))
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("end", ["xlsx", "XLS", "ods"])
def test_no_table_is_written_under_the_name_of_a_workbook(tmp_path, small_cache, smears, end):
    for words in (
        *(("audit", smears, "--out"), ("labels", small_cache, "--out"), ("sheet", smears, "--out")),
        ("export", small_cache, "--csv"),
    ):
        done = CliRunner().invoke(app, [*map(str, words), str(tmp_path / f"t.{end}")])
        assert isinstance(done.exception, DataError) and "NAME.csv" in str(done.exception), words
    assert not [*tmp_path.iterdir()]


def test_what_is_no_file_twice(tmp_path):
    (tmp_path / "a").mkdir()
    require_apart({"a": tmp_path / "x", "b": tmp_path / "y", "c": None, "d": None, "e": tmp_path / "a" / "x"})
    require_apart({"a": os.devnull, "b": os.devnull, "c": "s3://a/x", "d": "s3://b/x", "e": "s3://a/X"})
    for one, other in (("s3://a/x", Path("s3://a/x")), (tmp_path / "x", f"file://{tmp_path}/x")):
        with pytest.raises(DataError, match=r"for both a and b, expected a file of its own for each\. Give another b"):
            require_apart({"a": one, "b": other})


def test_only_its_own_kind_of_an_earlier_result_is_removed(tmp_path):
    path = tmp_path / "p.patients.csv"
    for content in (b"", b"patient,age\n1,8\n", OWN["patients table"]):
        path.write_bytes(content)
        remove_former(path, "patient answers")
        assert path.read_bytes() == content
    path.write_bytes(OWN["patient answers"])
    require_untouched(path)
    path.write_bytes(OWN["patient answers"] + b"a,1,0,x,1\n")  # by another program, since the check
    remove_former(path, "patient answers")
    assert path.exists()
    require_untouched(path)
    remove_former(path, "patient answers")
    assert not path.exists()
    remove_former(path, "patient answers")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_is_not_opened_before_the_work(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    require_writable(tmp_path / "pipe", kind="predictions")
    require_writable(Path(os.devnull), kind="predictions")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_text(path, "first")
    path.chmod(0o640)
    for error in (RuntimeError, KeyboardInterrupt, OSError):
        with pytest.raises((error, DataError)), replacing(path) as partial:
            partial.write_text("half")
            raise error
        assert path.read_text() == "first"
    link = tmp_path / "link"
    link.symlink_to(path)
    write_json(link, {"a": float("nan")})
    assert link.is_symlink()
    assert path.read_text() == '{\n  "a": null\n}\n'
    assert path.stat().st_mode & 0o777 == 0o640
    assert [item.name for item in path.parent.iterdir()] == ["a.txt"]
    with pytest.raises(DataError, match=r"cannot be written .*Give another output file"), replacing(tmp_path):
        pass


def test_bytes_are_durable_before_the_name_and_the_name_before_what_follows(tmp_path, monkeypatch):
    done, sync, rename = [], os.fsync, Path.replace

    def synced(handle):
        done.append(("on disk", os.fstat(handle).st_ino))
        sync(handle)

    def renamed(self, target):
        done.append(("named", self.stat().st_ino))
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_text(tmp_path / "a.txt", "a")
    with NewFolder(tmp_path, "run") as new:
        (new.path / "models").mkdir()
        (new.path / "models" / "b.txt").write_text("b")
    own = {name: (tmp_path / name).stat().st_ino for name in ("a.txt", "run", "run/models", "run/models/b.txt", "")}
    assert done[:3] == [("on disk", own["a.txt"]), ("named", own["a.txt"]), ("on disk", own[""])]
    before = {number for what, number in done[3:-2] if what == "on disk"}
    assert before == {own["run"], own["run/models"], own["run/models/b.txt"]}
    assert done[-2:] == [("named", own["run"]), ("on disk", own[""])]


@pytest.mark.slow
def test_what_a_killed_process_left_is_removed(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from ball_features.files import replacing\n"
        "from ball_features.runs.new_folder import NewFolder\n"
        "if sys.argv[2] == 'file':\n"
        "    with replacing(Path(sys.argv[1]) / 'a') as p: p.write_text('x'); print(1, flush=True); time.sleep(60)\n"
        "with NewFolder(Path(sys.argv[1]), 'a'): print(1, flush=True); time.sleep(60)"
    )
    for kind in ("file", "folder"):
        child = subprocess.Popen([sys.executable, "-c", code, tmp_path, kind], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    assert len(list(tmp_path.iterdir())) == 1  # the second removed what the first left
    other = tmp_path / f".a.{this_host()}.{os.getppid()}.partial"  # of a process that runs
    other.touch()
    with NewFolder(tmp_path, "a"):
        pass
    assert {item.name for item in tmp_path.iterdir()} == {"a-2", other.name}  # which will write `a`


def test_names_in_one_cell_can_be_told_apart():
    names = ("a/b", "-x|=1+1", "Pro")
    cell = plain_cell(safe_cell(joined_names(names)))
    assert cell == r"a/b|-x\x{7c}=1+1|Pro"
    assert tuple(part.replace(r"\x{7c}", "|") for part in cell.split("|")) == names


def test_a_temporary_folder_of_a_killed_process_is_removed(tmp_path):
    gone = tmp_path / f".ball-x.{this_host()}.99999999.partial"
    foreign = tmp_path / ".ball-x.99999999.partial"
    for item in (gone, foreign):
        item.mkdir()
        (item / "bins").touch()
    with temporary_folder(tmp_path) as first, temporary_folder(tmp_path) as second:
        assert {Path(first), Path(second), foreign} == set(tmp_path.iterdir())
        assert not Path(first).stat().st_mode & 0o077  # only its owner may read it
    assert {foreign} == set(tmp_path.iterdir())


@pytest.mark.parametrize("folder", [False, True])
def test_only_what_ball_left_is_removed(tmp_path, folder):
    gone, host = 99_999_999, this_host()
    foreign = (
        f".a.{gone}.partial", f"..a.{host}.{gone}.partial", f"a.{host}.{gone}.partial", f".a.{host}.{gone}.partial.bak",
        f".a.{host}.{gone}.partial.d", f".a.{host}.{gone}.PARTIAL", f".a.{host.upper()}x.{gone}.partial",
        f".a.{host}.0{gone}.partial", f".a.{host}.{gone}.partial~", f".b.{host}.{gone}.partial", ".20190412.partial",
    )  # fmt: skip
    begun_in_a_partial = f"..a.{host}.{gone}.partial.{host}.{gone}.partial"
    for name in (*foreign, f".a.{host}.{gone}.partial", begun_in_a_partial):
        item = tmp_path / name
        if folder:
            item.mkdir()
            item = item / "x"
        item.write_text("mine")
    write_text(tmp_path / "a", "whole")
    assert {item.name for item in tmp_path.iterdir()} == {"a", *foreign}


def test_containers_of_one_name_are_told_apart(monkeypatch):
    own = this_host()
    stat = Path.stat

    def other(path, **options):
        return os.stat_result([0, 5, *[0] * 8]) if str(path) == "/proc/self/ns/pid" else stat(path, **options)

    this_host.cache_clear()
    try:
        assert this_host() == own
        if Path("/proc/self/ns/pid").exists():
            monkeypatch.setattr(Path, "stat", other)
            this_host.cache_clear()
            assert this_host() != own
    finally:
        this_host.cache_clear()


@pytest.mark.slow
@given(
    st.text() | st.text("=+-@;'\"\t\r\n1a") | st.text("\\x{}1bc5\x1b"),
    st.sampled_from(["", "=", "+", "-", "@", "\t", "\r", "'", "'=", "''@"]),
)
def test_no_cell_is_a_formula_and_each_is_read_back(text, start):
    cell = safe_cell(start + text)
    assert plain_cell(cell) == start + text
    assert cell == escaped_controls(cell)
    for part in re.split("[;\t\r\n]", cell):  # what other programs take for cells
        if part.lstrip('"')[:1] in ("=", "+", "-", "@"):
            float(cell)  # a number is no formula
    assert cell[:1] not in ("\t", "\r")
    assert safe_cell(-1.5) == -1.5


def test_no_program_reads_a_formula_out_of_a_table(tmp_path):
    names = ["a;=1+1;b", 'a;"=1+1"', "a\t@x", "a\n=1+1", "a\r\n+1;-2", "a,=1+1", "=1+1", ";=1", "a'b;c", "a;'=1"]
    write_csv(tmp_path / "a.csv", ("path", "n"), [(name, -1) for name in names])
    for separator in (",", ";", "\t"):
        with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
            cells = [cell for row in csv.reader(file, delimiter=separator) for cell in row]
        assert not [cell for cell in cells if cell[:1] in "=+@-\t\r" and cell and cell != "-1"]
    assert [row["path"] for row in read_csv(tmp_path / "a.csv")] == names


def test_tables(tmp_path):
    rows = [("=cmd|'calc'!A0.jpg", -0.25), ('a,"b"\r\nc', 1), ("-1.5", "@x")]
    write_csv(tmp_path / "a.csv", ("path", "+x"), rows)
    text = (tmp_path / "a.csv").read_bytes().decode()
    assert text == 'path,\'+x\n\'=cmd|\'calc\'!A0.jpg,-0.25\n"a,""b""\\x{d}\\x{a}c",1\n-1.5,\'@x\n'
    read = list(read_csv(tmp_path / "a.csv"))
    assert read == [{"path": a, "+x": str(b)} for a, b in rows]


def test_controls_in_tables_are_read_back(tmp_path):
    """Also from tables of earlier versions, which have them as they are, and beside text that looks like them."""
    names = [
        "a\x1b]0;x\x07.jpg",
        "b\u202egpj.exe",
        "c\n\t\x9bd",
        r"slides\x10\new\a.jpg",
        r"\x1b",
        r"\x{1b}",
        r"\x5c\x{5c}",
    ]
    write_csv(tmp_path / "a.csv", ("path",), [(name,) for name in names])
    text = (tmp_path / "a.csv").read_text(encoding="utf-8")
    assert text == escaped_controls(text, kept="\n")
    assert len(text.splitlines()) == len(names) + 1
    assert "\na\\x{1b}]0;x\\x{7}.jpg\n" in text
    assert "\n" + r"slides\x10\new\a.jpg" + "\n\\x1b\n" in text
    write_cells(tmp_path / "b.csv", [["path"], *([name] for name in names[:5])])
    assert [row["path"] for row in read_csv(tmp_path / "a.csv")] == names
    assert [row["path"] for row in read_csv(tmp_path / "b.csv")] == names[:5]
    assert plain_cell(r"\x{41}\x{d800}") == r"\x{41}\x{d800}"


def test_folders(tmp_path):
    require_folder(tmp_path / "new" / "runs")
    assert not list((tmp_path / "new" / "runs").iterdir())
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "runs", Path("/proc")):
        with pytest.raises(DataError, match=r"cannot be written to .*Give another output folder"):
            require_folder(path)


@pytest.mark.slow
def test_no_model_is_fitted_where_no_run_can_be_written(tmp_path, small_cache, smears):
    def progress(done, total, name=""):
        pytest.fail("it began all the same")

    (tmp_path / "file").touch()
    groups = tmp_path / "groups.csv"
    names = [path.relative_to(smears).as_posix() for path in sorted(smears.rglob("*.jpg"))]
    groups.write_text("path,group,series\n" + "".join(f"{name},{name},{name.split('/')[0]}\n" for name in names))
    config = FitConfig(models=("logistic",), repeats=1, jobs=1)
    to = {"out_root": tmp_path / "file", "progress": progress}
    other = tmp_path / "other.h5"
    other.write_bytes(small_cache.read_bytes())
    for begin in (
        lambda: fit(small_cache, config, **to),
        lambda: compare([str(small_cache), str(other)], config, **to),
        lambda: tune(small_cache, FitConfig(jobs=1), trials=1, **to),
        lambda: ladder(small_cache, FitConfig(models=("logistic",), groups=str(groups), jobs=1), **to),
    ):
        with pytest.raises(DataError, match=r"cannot be written to .*Give another output folder"):
            begin()


def test_a_cache_that_cannot_be_locked_is_not_busy(tmp_path, smears):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a.h5", Path("/proc/a.h5")):
        with pytest.raises(CacheError, match="cannot be written") as caught, lock_cache(path):
            pass
        assert not isinstance(caught.value, CacheBusyError)
    with pytest.raises(CacheError, match=r"cannot be written .*Give another output file"):
        extract(smears, "/proc/a.h5", ExtractConfig(weights="random", backbone="densenet121"))


def test_a_demonstration_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be written to .*Give another output folder"):
        demo(tmp_path / "file" / "demo")


def test_links_in_a_folder_from_a_stranger_lead_to_nothing_that_is_overwritten(tmp_path):
    from ball_features.reporting.markup import write_page

    mine = tmp_path / "notes.txt"
    mine.write_text("mine")
    folder = tmp_path / "stranger"
    folder.mkdir()
    for name in ("report.html", "a.h5.lock", "predictions.csv"):
        (folder / name).symlink_to(mine)
    (folder / "evaluation.json").write_bytes(OWN["evaluation"])
    for named, said in ((False, r"report\.html is a link"), (True, "is no page file that ball has written")):
        with pytest.raises(DataError, match=said):
            write_page(folder / "report.html", "report.html", "a", named=named, sections=[], side_by_side=None)
    with pytest.raises(DataError, match=r"predictions\.csv is a link"):
        require_own_files(folder, ["predictions.csv"], "evaluation.json", "evaluation")
    with pytest.raises(CacheError, match="is no lock of"), lock_cache(folder / "a.h5"):
        pass
    (folder / "b.h5.lock").write_text("my notes")
    with pytest.raises(CacheError, match="is no lock of"), lock_cache(folder / "b.h5"):
        pass
    assert mine.read_text() == "mine"
    assert (folder / "b.h5.lock").read_text() == "my notes"
    with lock_cache(folder / "c.h5"):
        pass
    with lock_cache(folder / "c.h5"):
        pass
