"""Commands in a folder of a stranger: its modules, settings and styles are not obeyed; accounts without a home."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ball_features.cli import app
from ball_features.cli.root import _keep_to_installed_code
from ball_features.errors import ConfigError
from ball_features.extraction.networks import file_sha256, know_network
from ball_features.files import user_folder
from ball_features.reporting.charts import Axis, Chart
from ball_features.reporting.plot import draw, save

WRITES = "open('ran', 'w').close()"


def test_no_module_of_the_working_folder_is_imported(tmp_path, monkeypatch):
    """Neither by the command nor by the processes that it starts with -m and -c."""
    for name in ("joblib", "secret_module"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(WRITES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), *sys.path])
    _keep_to_installed_code()
    assert not {"", str(tmp_path)} & set(sys.path)
    for words in (("-c", "import joblib"), ("-m", "joblib")):
        subprocess.run([sys.executable, *words], check=False, capture_output=True)
    assert not Path("ran").exists()


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


def test_an_account_without_a_home(tmp_path, monkeypatch):
    """As in a container whose user has no entry: a folder that nobody else can write to."""

    def homeless(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", homeless)
    folder = user_folder("torch").parent
    assert folder.is_dir()
    assert not folder.stat().st_mode & 0o022
