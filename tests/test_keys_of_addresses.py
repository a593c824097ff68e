"""Keys, passwords and signatures in addresses: in no text, file or page of any command, nor in names of copies."""

import uuid

import pytest
from typer.testing import CliRunner

from ball_features import read_cache
from ball_features.cache import local_copy
from ball_features.cli import app

fsspec = pytest.importorskip("fsspec")
KEYS = ("HUNTER", "TWO", "SIGNATURE")
FIT = ("--models", "logistic", "--repeats", "1")


@pytest.fixture(scope="module", autouse=True)
def vault():
    class Vault(type(fsspec.filesystem("memory"))):
        """A store that takes user, password and signature, and knows its files without them."""

        protocol = "vault"

        @classmethod
        def _strip_protocol(cls, path):
            path = str(path).removeprefix("vault://").rpartition("@")[2].partition("?")[0]
            return "/" + path.strip("/")

    fsspec.register_implementation("vault", Vault, clobber=True)
    return Vault()


@pytest.fixture
def place(vault, tmp_path, monkeypatch, small_cache, few_smears):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "copies"))
    monkeypatch.chdir(tmp_path)
    top = uuid.uuid4().hex
    for name in ("a/c.h5", "b/c.h5"):
        vault.pipe_file(f"/{top}/{name}", small_cache.read_bytes())
    for path in few_smears.rglob("*.jpg"):
        vault.pipe_file(f"/{top}/images/{path.relative_to(few_smears).as_posix()}", path.read_bytes())
    rows = "".join(f"{path},P{number % 9}\n" for number, path in enumerate(read_cache(small_cache).path))
    vault.pipe_file(f"/{top}/sheet.csv", f"path,patient\n{rows}".encode())

    def address(name, user="ann"):
        return f"vault://{user}:HUN/TER@TWO@{top}/{name}?sig=SIGNATURE"

    return address


def leaks(text):
    return [key for key in (*KEYS, "HUN/TER") if key in text]


COMMANDS = {
    "fit": lambda at, out: ("fit", at("a/c.h5"), *FIT, "--groups", at("sheet.csv"), "--out", out),
    "compare": lambda at, out: ("compare", at("a/c.h5"), at("b/c.h5"), *FIT, "--out", out),
    "compare with a cache of this disk": lambda at, out: ("compare", at("a/c.h5"), "c.h5", *FIT, "--out", out),
    "merge": lambda at, out: ("merge", at("a/c.h5"), at("b/c.h5"), "--out", at("m.h5")),
    "inspect": lambda at, out: ("inspect", at("a/c.h5"), "--verify"),
    "labels": lambda at, out: ("labels", at("a/c.h5"), "--out", out / "l.csv", "--page", out / "l.html"),
    "export": lambda at, out: ("export", at("a/c.h5"), "--csv", out / "e.csv"),
    "audit": lambda at, out: ("audit", at("images"), "--out", out / "g.csv", "--page", out / "g.html"),
    "sheet": lambda at, out: ("sheet", at("images"), "--out", out / "s.csv"),
    "segment": lambda at, out: ("segment", at("images"), "--out", out),
    "extract": lambda at, out: (
        *("extract", at("images"), "--sheet", at("sheet.csv"), "--out", at("x.h5"), "--weights", "random"),
        *("--backbone", "densenet121", "--views", "1", "--limit", "4"),
    ),
    "nothing there": lambda at, out: ("fit", at("none.h5"), "--out", out),
    "no images there": lambda at, out: ("extract", at("nowhere"), "--out", at("x.h5")),
    "no cache there": lambda at, out: ("fit", at("sheet.csv"), "--out", out),
    "nowhere: a bundle": lambda at, out: ("predict", at("c.h5"), "images"),
    "nowhere: a bundle to adapt": lambda at, out: ("adapt", at("c.h5"), "images", "--site", "X", "--out", out / "k"),
    "nowhere: a bundle to serve": lambda at, out: ("serve", at("c.h5")),
    "nowhere: a run": lambda at, out: ("report", at("c.h5")),
    "nowhere: runs": lambda at, out: ("runs", at("c.h5")),
    "nowhere: a configuration": lambda at, out: ("fit", "c.h5", "--config", at("c.toml")),
    "nowhere: a network": lambda at, out: (
        "extract",
        "c.h5",
        "--backbone",
        f"file:{at('n.pt')}",
        "--out",
        out / "x.h5",
    ),
    "nowhere: weights": lambda at, out: ("extract", "c.h5", "--weights", at("n.pt"), "--out", out / "x.h5"),
    "nowhere: twins": lambda at, out: (
        *("extract", "c.h5", "--channels", "original,segmented", "--twins", at("t"), "--out", out / "x.h5"),
    ),
    "stored": lambda at, out: ("fit", at("a/c.h5"), *FIT, "--out", at("runs")),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_no_key_is_written_or_told(vault, place, tmp_path, small_cache, name):
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "c.h5").write_bytes(small_cache.read_bytes())
    before = set(vault.store)
    words = [str(word) for word in COMMANDS[name](place, out)]
    done = CliRunner().invoke(app, words)
    assert (done.exit_code != 0) == name.startswith("no"), (done.output, done.exception)
    assert not leaks(done.output + str(done.exception or ""))
    for path in [*out.rglob("*"), *(tmp_path / "copies").rglob("*")]:
        assert not leaks(str(path))
        assert not path.is_file() or not leaks(path.read_bytes().decode("latin-1")), path
    for path in set(vault.store) - before:
        assert not leaks(path) and not leaks(vault.cat_file(path).decode("latin-1")), path


def test_files_that_differ_in_a_query_or_a_user_are_two(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    memory = fsspec.filesystem("memory")
    top = uuid.uuid4().hex
    addresses = [f"memory://{top}/get?path={name}/c.h5" for name in "ab"]
    addresses += [f"memory://{user}:x@{top}/c.h5" for user in ("ann", "bob")]
    for number, address in enumerate(addresses):
        memory.pipe_file(address.removeprefix("memory:/"), str(number).encode())
    for _ in range(2):
        assert [local_copy(address).read_bytes() for address in addresses] == [b"0", b"1", b"2", b"3"]
