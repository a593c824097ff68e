"""Outputs under addresses: stored whole when the command has ended, known by their address, never over other files."""

import json
import uuid
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ball_features.cli import app
from ball_features.config.paths import as_path, called, disk_path, is_copy, shareable, whole_address
from ball_features.errors import BallError, ConfigError, DataError
from ball_features.files import STORED, delivered

fsspec = pytest.importorskip("fsspec")
FIT = ("--models", "logistic", "--repeats", "1")


@pytest.fixture(autouse=True)
def copies(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "copies"))
    return tmp_path / "copies" / "ball" / "remote"


@pytest.fixture
def memory():
    return fsspec.filesystem("memory")


@pytest.fixture
def top():
    return f"memory://{uuid.uuid4().hex}/deep"


def key(address):
    return address.removeprefix("memory:/")


def ball(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(done.exception, BallError):
        return str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.output


def names(memory, top):
    memory.invalidate_cache()
    return sorted(path.removeprefix(key(top) + "/") for path in memory.find(key(top)))


def copies_left(copies):
    return [path for path in copies.glob("*out-*") if path.suffix != ".lock"] if copies.exists() else []


@pytest.fixture(scope="module")
def bundle(small_cache, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    ball("fit", small_cache, *FIT, "--save", "logistic", "--out", root, "--name", "one")
    return root / "one" / "models" / "logistic"


@pytest.mark.slow
def test_a_run_is_stored_under_its_address_and_names_it(memory, top, small_cache, copies):
    secret = top.replace("memory://", "memory://KEY:SECRET@")
    for number in (1, 2):
        said = ball("fit", small_cache, *FIT, "--out", f"{top}/runs", "--name", "one", "--note", "mine")
        assert f"Run: {top}/runs/one{'-2' if number == 2 else ''}" in said
    found = names(memory, top)
    assert {"runs/one/run.json", "runs/one/report.html", "runs/one-2/metrics.csv"} <= set(found)
    assert not any(name.endswith((".partial", ".lock")) for name in found)
    for name in found:
        content = memory.cat_file(f"{key(top)}/{name}")
        assert str(copies).encode() not in content and b".partial" not in content, name
    details = json.loads(memory.cat_file(f"{key(top)}/runs/one/run.json"))
    assert f"--config {top}/runs/one/config.toml" in details["command"] and details["note"] == "mine"
    assert "cache_from_run" not in details
    assert not copies_left(copies)
    assert "SECRET" not in ball("fit", small_cache, *FIT, "--out", f"{secret}/runs", "--json")
    assert not any(b"SECRET" in memory.cat_file(path) for path in memory.find("/"))


def test_a_file_of_settings_sends_nothing_to_an_address(memory, top, small_cache, tmp_path):
    settings = tmp_path / "theirs.toml"
    settings.write_text(f'out = "{top}/runs"\n')
    said = ball("fit", small_cache, *FIT, "--config", settings)
    assert f"Got the address {top}/runs from a file" in said and not names(memory, top)


def test_what_another_machine_stores_during_the_upload_stays(memory, top, copies, monkeypatch):
    store = type(memory).put_file

    def put_file(self, *given, **more):
        store(self, *given, **more)
        if not self.exists(f"{key(top)}/e/b.csv"):
            self.pipe_file(f"{key(top)}/e/b.csv", b"theirs")

    monkeypatch.setattr(type(memory), "put_file", put_file)
    with pytest.raises(DataError, match=r"b\.csv was changed by another program"), delivered(f"{top}/e") as folder:
        folder.mkdir(exist_ok=True)
        for name in "abc":
            (folder / f"{name}.csv").write_text("ours")
    assert names(memory, top) == ["e/b.csv"] and memory.cat_file(f"{key(top)}/e/b.csv") == b"theirs"
    (kept,) = copies_left(copies)
    assert (kept / "e" / "b.csv").read_text() == "ours"


def test_what_finishes_a_run_is_stored_last(memory, top, copies, monkeypatch):
    order, move = [], type(memory).mv
    monkeypatch.setattr(type(memory), "mv", lambda self, old, new: order.append(new) or move(self, old, new))
    with delivered(f"{top}/runs", "runs") as folder:
        for name in ("one/run.json", "one/a.csv", "one/models/m/bundle.json", "one/models/m/b.bin", "one/z.csv"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
    ends = [name.removeprefix(f"{key(top)}/runs/one/") for name in order]
    assert ends == ["models/m/b.bin", "a.csv", "z.csv", "models/m/bundle.json", "run.json"]


def test_a_store_that_fails_half_way_holds_nothing_new_and_the_work_is_kept(memory, top, copies, monkeypatch):
    put, calls = type(memory).put_file, []

    def fail(self, *more, **also):
        calls.append(more)
        if len(calls) == 3:
            raise RuntimeError("https://KEY:SECRET@store is full")
        return put(self, *more, **also)

    monkeypatch.setattr(type(memory), "put_file", fail)
    with pytest.raises(DataError, match="What was written is in") as refused, delivered(f"{top}/e") as folder:
        folder.mkdir()
        for number in range(4):
            (folder / f"{number}.csv").write_text(str(number))
    assert "SECRET" not in str(refused.value)
    assert names(memory, top) == []
    (kept,) = copies_left(copies)
    assert (kept / "e" / "3.csv").read_text() == "3" and str(kept) in str(refused.value)


def test_a_command_that_fails_stores_nothing(memory, top, copies):
    for kind in STORED:
        with pytest.raises(KeyboardInterrupt), delivered(f"{top}/{kind}", kind) as path:
            (path if kind == "file" else path / "x").parent.mkdir(parents=True, exist_ok=True)
            (path if kind == "file" else path / "x").write_text("half")
            raise KeyboardInterrupt
    assert names(memory, top) == []
    assert len(copies_left(copies)) == 2  # of "kept": the copy and its note, with which the command goes on
    with delivered(f"{top}/kept", "kept") as path:
        assert (path / "x").read_text() == "half"
    assert names(memory, top) == ["kept/x"]
    assert not copies_left(copies)


def test_two_commands_do_not_share_a_kept_copy(top):
    with (
        delivered(f"{top}/kept", "kept"),
        pytest.raises(DataError, match="Another command"),
        delivered(f"{top}/kept", "kept"),
    ):
        pass


@pytest.mark.slow
def test_an_output_replaces_nothing_but_its_own_kind(memory, top, bundle, smears, copies):
    out = f"{top}/p.csv"
    memory.pipe_file(key(out), b"name,grade\nann,1\n")
    assert f"{out} exists and is no predictions file" in ball("predict", bundle, smears, "--out", out)
    assert memory.cat_file(key(out)) == b"name,grade\nann,1\n"
    memory.rm_file(key(out))
    assert f"{out}.json" in ball("predict", bundle, smears, "--out", out)
    assert names(memory, top) == ["p.csv", "p.csv.json"]
    first = memory.cat_file(key(out))
    ball("predict", bundle, smears, "--out", out)
    assert memory.cat_file(key(out)) == first
    memory.pipe_file(f"{key(top)}/e/predictions.csv", b"theirs")
    assert "nothing tells that ball has written it" in ball("evaluate", bundle, smears, "--out", f"{top}/e")
    assert memory.cat_file(f"{key(top)}/e/predictions.csv") == b"theirs"
    memory.rm_file(f"{key(top)}/e/predictions.csv")
    for _ in range(2):
        assert f"Page: {top}/e/evaluation.html" in ball("evaluate", bundle, smears, "--out", f"{top}/e")
    assert {"e/evaluation.json", "e/evaluation.html", "e/predictions.csv"} <= set(names(memory, top))
    assert not copies_left(copies)


def test_what_another_program_stores_meanwhile_stays(memory, top, copies):
    memory.pipe_file(f"{key(top)}/e/old.csv", b"old")
    with pytest.raises(DataError, match=r"old.csv was changed by another program"), delivered(f"{top}/e") as folder:
        (folder / "old.csv").write_text("mine")
        memory.pipe_file(f"{key(top)}/e/old.csv", b"theirs")
    assert memory.cat_file(f"{key(top)}/e/old.csv") == b"theirs"
    with pytest.raises(DataError, match="was changed by another"), delivered(f"{top}/runs", "runs") as folder:
        (folder / "one").mkdir(parents=True)
        (folder / "one" / "run.json").write_text("mine")
        memory.pipe_file(f"{key(top)}/runs/one/run.json", b"theirs")
    assert memory.cat_file(f"{key(top)}/runs/one/run.json") == b"theirs"


def test_what_a_command_removes_is_removed_there(memory, top):
    for name in ("a", "b"):
        memory.pipe_file(f"{key(top)}/e/{name}", name.encode())
    with delivered(f"{top}/e") as folder:
        (folder / "a").unlink()
    assert names(memory, top) == ["e/b"]


def test_a_name_in_a_store_leads_nowhere_else(memory, top, copies):
    memory.pipe_file(f"{key(top)}/e/../../../away", b"x")
    with pytest.raises(DataError, match="no name of a file here"), delivered(f"{top}/e"):
        pass
    with delivered(f"{top}/e", "runs") as folder:
        assert not folder.exists() or not list(folder.rglob("*"))
    assert not copies_left(copies)


def test_a_store_that_takes_no_file_is_named_before_the_work(memory, top, monkeypatch):
    monkeypatch.setattr(type(memory), "pipe_file", lambda *more, **also: (_ for _ in ()).throw(PermissionError()))
    with pytest.raises(DataError, match="PermissionError"), delivered(f"{top}/e"):
        pytest.fail("began")


@pytest.mark.parametrize("place", ["x.csv", "sub/x.csv", "sub/sub/x.csv"])
def test_nothing_is_stored_in_a_saved_model(memory, top, small_cache, copies, place):
    for name in ("bundle.json", "reference.safetensors"):
        memory.pipe_file(f"{key(top)}/model/{name}", b"{}")
    memory.pipe_file(f"{key(top)}/bundle.json", b"of another program")  # above, where nothing but its name tells
    before = names(memory, top)
    for command in (("labels", small_cache), ("fit", small_cache, *FIT), ("merge", small_cache, small_cache)):
        assert f"{top}/model holds a saved model" in ball(*command, "--out", f"{top}/model/{place}")
    assert names(memory, top) == before and not copies_left(copies)
    with delivered(f"{top}/other/{place}", "file") as path:
        path.write_text("x")
    assert f"other/{place}" in names(memory, top)


def test_texts_files_and_errors_call_a_copy_by_its_address(tmp_path):
    with pytest.raises(DataError, match=r"^s3://bucket/g\.csv is bad$"), called(tmp_path, "s3://bucket"):
        assert shareable({"groups": str(tmp_path / "g.csv")}) == {"groups": "s3://bucket/g.csv"}
        assert shareable(f"see {tmp_path}/g.csv.json") == "see s3://bucket/g.csv.json"
        assert is_copy(tmp_path / "g.csv") and not is_copy(tmp_path.parent / "g.csv")
        raise DataError(f"{tmp_path}/g.csv is bad")
    assert not is_copy(tmp_path / "g.csv")


def test_the_kind_is_checked_and_a_path_of_this_machine_is_itself(tmp_path):
    with pytest.raises(ConfigError, match="expected one of"), delivered("x", "thing"):
        pass
    with delivered(tmp_path / "x", "runs") as folder:
        assert folder == tmp_path / "x"


@pytest.mark.slow
def test_audit_keeps_columns_of_the_groups_file_there(memory, top, few_smears, copies):
    out = f"{top}/g.csv"
    said = ball("audit", few_smears, "--out", out, "--page", f"{top}/a.html", "--strict")
    assert f"Groups: {out}" in said and f"Page: {top}/a.html" in said
    page = memory.cat_file(key(f"{top}/a.html")).decode()
    assert str(copies) not in page
    table = memory.cat_file(key(out)).decode().splitlines()
    memory.pipe_file(key(out), "\n".join([f"{table[0]},mine", *(f"{line},7" for line in table[1:])]).encode())
    ball("audit", few_smears, "--out", out)
    again = memory.cat_file(key(out)).decode().splitlines()
    assert again[0].endswith(",mine") and all(line.endswith(",7") for line in again[1:])


@pytest.mark.slow
def test_the_other_outputs_reach_their_address(memory, top, bundle, small_cache, few_smears):
    ball("report", bundle.parents[1], "--out", f"{top}/joint.html")
    ball("report", bundle.parents[1], "--figures", f"{top}/figures", "--format", "svg")
    ball("labels", small_cache, "--out", f"{top}/l.csv", "--page", f"{top}/l.html")
    ball("sheet", few_smears, "--out", f"{top}/s.csv")
    assert "exists" in ball("sheet", few_smears, "--out", f"{top}/s.csv")
    ball("segment", few_smears, "--out", f"{top}/dark")
    ball("export", bundle, "--card", f"{top}/card.md")
    ball("export", small_cache, "--csv", f"{top}/e.csv", "--parquet", f"{top}/e.parquet")
    found = set(names(memory, top))
    assert {"joint.html", "l.csv", "l.html", "s.csv", "dark/nuclei.csv", "card.md", "e.csv", "e.parquet"} <= found
    assert {"figures/captions.md", "figures/table.tex"} <= found
    assert any(name.startswith("dark/") and name.endswith(".png") for name in found)


@pytest.mark.slow
def test_an_assessment_is_stored_and_goes_on(memory, top, few_smears, copies):
    words = ("assess", few_smears, "--backbone", "densenet121", "--weights", "random", "--input-px", "32")
    words = (*words, "--precision", "fp32", "--models", "logistic", "--repeats", "2", "--out", f"{top}/a")
    assert f"Page: {top}/a/assess.html" in ball(*words)
    found = names(memory, top)
    assert {"a/assess.html", "a/cache.h5", "a/groups.csv", "a/audit.json", "a/verdict.json"} <= set(found)
    texts = [name for name in found if not name.endswith(".h5")]
    assert not [name for name in texts if str(copies).encode() in memory.cat_file(f"{key(top)}/{name}")]
    assert not copies_left(copies)
    page = memory.info(f"{key(top)}/a/cache.h5")["created"]
    said = ball(*words)
    assert "What an earlier run left there is used" in said
    assert memory.info(f"{key(top)}/a/cache.h5")["created"] == page, "an equal cache is not stored again"


def test_an_object_store_holds_results(bundle, smears, small_cache, monkeypatch, copies):
    server = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    running = server.ThreadedMotoServer(port=0)
    running.start()
    host, port = running.get_host_and_port()
    for name, value in (("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "SECRET")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    system = fsspec.filesystem("s3")
    system.mkdir("results")
    try:
        for number in (1, 2):
            run = f"s3://results/runs/one{'-2' if number == 2 else ''}"
            assert f"Run: {run}" in ball("fit", small_cache, *FIT, "--out", "s3://results/runs", "--name", "one")
            ball("evaluate", bundle, smears, "--out", "s3://results/e")
            ball("predict", bundle, smears, "--out", "s3://results/p.csv")
        found = set(system.find("results"))
        assert {"results/runs/one/run.json", "results/runs/one-2/run.json", "results/e/evaluation.json"} <= found
        assert {"results/p.csv", "results/p.csv.json"} <= found
        assert not any(name.endswith(".partial") for name in found)
        assert not any(b"SECRET" in system.cat_file(name) for name in found)
        system.pipe_file("results/q.csv", b"name\nann\n")
        assert "exists and is no predictions file" in ball("predict", bundle, smears, "--out", "s3://results/q.csv")
        assert not copies_left(copies)
    finally:
        running.stop()
        type(system).clear_instance_cache()  # another test has another server


@pytest.mark.slow
def test_files_of_this_machine_have_addresses_too(tmp_path, bundle, smears):
    out = tmp_path / "deep" / "p.json"
    ball("predict", bundle, smears, "--out", f"file://{out}")
    assert json.loads(out.read_text())["predictions"]
    assert [path.name for path in out.parent.iterdir()] == ["p.json"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["file://{}", "file:{}", "local://{}", "file://localhost{}"])
def test_outputs_on_this_disk_are_checked_as_paths(tmp_path, bundle, small_cache, smears, form):
    """Inputs, also by another name, and saved models, also by a link, are what they are under an address."""
    out = tmp_path / "e"
    ball("evaluate", bundle, "--cache", small_cache, "--out", form.format(out))
    before = (out / "predictions.csv").read_bytes()
    (tmp_path / "link").symlink_to(bundle)
    also = ("--coverage", "0.8", "--out")
    sheet = form.format(out / "predictions.csv")
    for words, message in (
        ((smears, "--sheet", out / "predictions.csv", *also, form.format(out)), "is an input of this command"),
        ((smears, "--sheet", sheet, *also, out), "is an input of this command"),
        (("--cache", form.format(small_cache), *also, form.format(tmp_path / "link")), "holds a saved model"),
    ):
        assert message in ball("evaluate", bundle, *words)
    assert (out / "predictions.csv").read_bytes() == before
    assert not (bundle / "predictions.csv").exists()


@pytest.mark.slow
def test_an_input_under_an_address_is_not_replaced_there(memory, top, bundle, small_cache, smears):
    ball("evaluate", bundle, "--cache", small_cache, "--out", f"{top}/e")
    before = {path: memory.cat_file(path) for path in memory.find(key(top))}
    also = ("--coverage", "0.8", "--out")
    for words in (
        (smears, "--sheet", f"{top}/e/predictions.csv", *also, f"{top}/e"),
        (smears, "--sheet", f"{top}/e/predictions.csv", *also, f"{top}/e/"),
    ):
        assert "is an input of this command" in ball("evaluate", bundle, *words)
    words = (smears, "--sheet", f"{top}/e/predictions.csv", "--out", f"{top}/e/predictions.csv")
    assert "is an input of this command" in ball("predict", bundle, *words)
    assert {path: memory.cat_file(path) for path in memory.find(key(top))} == before


@pytest.mark.parametrize(
    "text", ["hdfs:///user/a.h5", "hdfs://host/a.h5", "file:///data/a.h5", "memory:///a/b", "s3://b"]
)
def test_an_address_keeps_its_host_or_none(text):
    assert whole_address(as_path(text)) == {"file:///data/a.h5": "/data/a.h5"}.get(text, text)
    assert disk_path(text) == (Path("/data/a.h5") if text.startswith("file") else None)


@pytest.mark.slow
def test_files_of_others_stay_in_a_folder_under_an_address(memory, top, bundle, small_cache):
    """Also those that are named like what `ball` removes on this machine."""
    theirs = ("poetry.lock", "movie.partial", "deep/letter.writer", "notes.txt", ".partial", "a.lock/b")
    for name in theirs:
        memory.pipe_file(f"{key(top)}/e/{name}", name.encode())
    for _ in range(2):
        ball("evaluate", bundle, "--cache", small_cache, "--out", f"{top}/e")
        assert {name: memory.cat_file(f"{key(top)}/e/{name}") for name in theirs} == {n: n.encode() for n in theirs}
    assert "e/predictions.csv" in names(memory, top)


def test_a_command_that_ends_with_findings_has_stored_them(memory, top):
    from ball_features.cli.derive import command
    from ball_features.cli.sheet import SheetOptions

    def sheet(options: SheetOptions) -> None:
        options.out.write_text("found")
        raise typer.Exit(1)

    assert command(sheet).main(["--out", f"{top}/s.csv"], standalone_mode=False) == 1
    assert memory.cat_file(key(f"{top}/s.csv")) == b"found"
