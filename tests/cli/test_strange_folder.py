"""Commands in a folder of a stranger: its modules, settings and styles are not obeyed; accounts without a home."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ball_features.cli import app
from ball_features.cli.root import _keep_to_installed_code
from ball_features.errors import ConfigError
from ball_features.extraction.known_networks import file_sha256, know_network
from ball_features.files import user_folder
from ball_features.files.user_folder import private_folder
from ball_features.reporting.charts import Axis, Chart
from ball_features.reporting.plot import draw, save
from tests.commands import ball
from tests.made import clouds, write_cache

WRITES = "open('ran', 'w').close()"


@pytest.mark.slow
@pytest.mark.parametrize("given", ["", os.pathsep, f"{os.pathsep}/opt", f"/opt{os.pathsep}", "/opt", None])
def test_no_module_of_the_working_folder_is_imported(tmp_path, monkeypatch, given):
    """Neither by the command nor by the processes that it starts with -m and -c."""
    for name in ("joblib", "secret_module"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(WRITES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if given is not None:
        monkeypatch.setenv("PYTHONPATH", given)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), *sys.path])
    _keep_to_installed_code()
    assert not {"", str(tmp_path)} & set(sys.path)
    for words in (("-c", "import joblib"), ("-m", "joblib")):
        subprocess.run([sys.executable, *words], check=False, capture_output=True)
    assert not Path("ran").exists()


@pytest.mark.parametrize("named", ["{}", ".", "/opt" + os.pathsep + "{}"])
def test_a_working_folder_that_the_user_names_is_kept(tmp_path, monkeypatch, named):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    monkeypatch.setenv("PYTHONPATH", named.format(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    _keep_to_installed_code()
    assert str(tmp_path) in sys.path


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_program_that_a_file_of_settings_names_does_not_run(tmp_path, smears, monkeypatch):
    """Until the user names it; then the hash is known, and the settings are enough."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.jit.script(torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())).save("net.pt")
    Path("config.toml").write_text('backbone = "file:net.pt"\ninput_px = 64\nnormalize = "half"\n')
    words = ["extract", str(smears), "--config", "config.toml", "--out", "c.h5", "--dry-run"]
    refused = CliRunner().invoke(app, words)
    assert isinstance(refused.exception, ConfigError)
    assert "TorchScript" in str(refused.exception)
    assert not Path("cache").exists()
    assert CliRunner().invoke(app, [*words, "--backbone", "file:net.pt"]).exit_code == 0
    know_network(file_sha256(Path("net.pt")))
    assert CliRunner().invoke(app, words).exit_code == 0


def test_a_style_of_the_working_folder_changes_no_figure(tmp_path):
    """What matplotlib reads of a matplotlibrc when it is imported."""
    import matplotlib

    chart = Chart("title", Axis(0, 1, (), "x"), Axis(0, 1, (), "y"))
    (usual,) = save(draw(chart), tmp_path / "usual", ("svg",))
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "red", "figure.dpi": 30}):
        (own,) = save(draw(chart), tmp_path / "own", ("svg",))
    assert usual.read_bytes() == own.read_bytes()


def not_utf8(path):
    path.write_bytes(b"axes.facecolor: \xff\xe9\0")


def of_bad_values(path):
    path.write_text("axes.facecolor: red\ntext.usetex: True\nno colon\nbackend: module://secret\n" * 2)


FIGURE = """
from pathlib import Path
from ball_features.reporting.charts import Axis, Chart
from ball_features.reporting.plot import draw, save
save(draw(Chart("title", Axis(0, 1, (), "x"), Axis(0, 1, (), "y"))), Path("figure"), ("svg",))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "place"), [(not_utf8, "variable"), (of_bad_values, "settings/matplotlib"), (os.mkfifo, "work")]
)
def test_figures_are_drawn_whatever_settings_of_matplotlib_hold(tmp_path, make, place):
    """Nor are settings waited for, nor is a word said of them."""
    for folder in ("work", "variable", "settings/matplotlib"):
        (tmp_path / folder).mkdir(parents=True)
    make(tmp_path / place / "matplotlibrc")
    variable = str(tmp_path / "variable" / "matplotlibrc") if place == "variable" else ""
    env = os.environ | {"XDG_CONFIG_HOME": str(tmp_path / "settings"), "MATPLOTLIBRC": variable}
    words = [sys.executable, "-P", "-c", FIGURE]
    env["PYTHONPATH"] = str(Path(__file__).parents[2])
    done = subprocess.run(words, env=env, cwd=tmp_path / "work", capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    chart = Chart("title", Axis(0, 1, (), "x"), Axis(0, 1, (), "y"))
    (usual,) = save(draw(chart), tmp_path / "usual", ("svg",))
    assert usual.read_bytes() == (tmp_path / "work" / "figure.svg").read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder there that nobody can write to")
def test_neither_home_nor_temporary_folder_is_needed(tmp_path):
    """A home that is read-only, as in containers, and a temporary folder that is not there."""
    cache = write_cache(tmp_path / "a.h5", *clouds(20))
    env = {"HOME": "/proc", "TMPDIR": str(tmp_path / "nowhere"), "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": ""}
    for words in (
        ("fit", cache, "--models", "logistic,lda", "--repeats", "1", "--jobs", "2", "--out", tmp_path, "--name", "r"),
        ("report", tmp_path / "r", "--figures", tmp_path / "figures", "--format", "svg"),
        ("export", cache, "--csv", tmp_path / "a.csv"),
        ("labels", cache, "--models", "logistic", "--out", tmp_path / "labels.csv"),
    ):
        done = ball(*words, env=env, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert "matplotlib" not in done.stderr.lower()


def test_an_account_without_a_home(tmp_path, monkeypatch):
    """As in a container whose user has no entry: a folder that nobody else can write to."""

    def homeless(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", homeless)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    private_folder.cache_clear()
    try:
        folder = user_folder("torch").parent
    finally:
        private_folder.cache_clear()
    assert folder.parent == tmp_path
    assert folder.is_dir()
    assert not folder.stat().st_mode & 0o022
