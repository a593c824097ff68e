"""Names of files are read as UTF-8 in any locale."""

import os
import subprocess
import sys

import pytest
from PIL import Image

pytestmark = pytest.mark.skipif(os.name == "nt", reason="names are UTF-8 there")


@pytest.mark.slow
@pytest.mark.parametrize("words", [["-m", "ball_features"], ["-c", "from ball_features.cli import main; main()"]])
def test_names_are_those_that_any_other_locale_reads(tmp_path, words):
    folder = tmp_path / "bilder" / "Bénign ß"
    folder.mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (32, 32), (number, 100, 200)).save(folder / f"é{number}.png")
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONIO"))}
    environment |= {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    found = {}
    for locale in ("C", "C.UTF-8"):
        out = tmp_path / f"{locale}.csv"
        command = [sys.executable, *words, "sheet", "bilder", "--out", str(out)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment | {"LC_ALL": locale}, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found[locale] = out.read_bytes()
    assert found["C"] == found["C.UTF-8"] and "Bénign ß/é0.png".encode() in found["C"]
