"""The pages for people: their code runs, their diffs apply, what they name exists."""

import doctest
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ball_features
from ball_features.evaluation.metrics import METRICS
from tests.test_architecture import MODULES, PACKAGE, ROOMS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def python_code(text: str) -> list[str]:
    """Indented blocks that import something, and fenced ones in Python."""
    indented = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", text, re.MULTILINE)
    blocks = ["\n".join(line[4:] for line in block.split("\n")) for block in indented]
    return [b for b in blocks if re.search(r"^(from|import) ", b, re.MULTILINE)] + re.findall(
        r"```python\n(.*?)```", text, re.S
    )


def diffs(text: str) -> list[str]:
    return re.findall(r"```diff\n(.*?)```", text, re.S)


@pytest.mark.slow
def test_the_python_code_of_the_readme_runs(tmp_path):
    blocks = python_code(page("README.md"))
    assert blocks
    code = "\n".join(blocks)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "smears.h5").exists()


def documented() -> list[str]:
    names = [path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".") for path in MODULES]
    texts = [path.read_text(encoding="utf-8") for path in MODULES]
    return [name for name, text in zip(names, texts, strict=True) if ">>> " in text]


@pytest.mark.parametrize("name", documented())
def test_the_examples_of_docstrings_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(importlib.import_module(name.removesuffix(".__init__")), optionflags=doctest.ELLIPSIS)
    assert found.attempted
    assert not found.failed


@pytest.mark.parametrize("number", range(len(diffs(page("CONTRIBUTING.md")))))
def test_the_diffs_of_the_contributing_page_apply(number):
    git = shutil.which("git")
    if git is None:
        pytest.skip("no git here")
    diff = diffs(page("CONTRIBUTING.md"))[number]
    done = subprocess.run([git, "apply", "--check", "-"], input=diff, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"make this diff again:\n{done.stderr}"
    assert not landed(diff, ROOT), f"make this diff again, its example is in the code: {landed(diff, ROOT)}"


def landed(diff: str, root: Path) -> list[str]:
    """What a diff adds to files that have it already: blocks of lines, and records by their name."""
    found = []
    for change in diff.split("diff --git ")[1:]:
        name = re.search(r"^\+\+\+ b/(.+)$", change, re.MULTILINE)
        assert name is not None
        file = root / name[1]
        code = file.read_text(encoding="utf-8") if file.exists() else ""
        added = re.findall(r"(?:^\+(?!\+\+ b/).*\n?)+", change, re.MULTILINE)
        blocks = ["\n".join(line[1:] for line in block.splitlines()).strip() for block in added]
        records = re.findall(r'^\+ +(?:\w+\(|name=)?("[\w-]+")[:,]', change, re.MULTILINE)
        found += [text for text in (*blocks, *records) if text in code]
    return found


def test_an_example_that_is_in_the_code_is_found(tmp_path):
    """By its lines, and by the name of its record where the lines differ."""
    for diff in diffs(page("CONTRIBUTING.md")):
        file = re.findall(r"^\+\+\+ b/(.+)$", diff, re.MULTILINE)[-1]
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("", encoding="utf-8")
        assert not landed(diff, tmp_path)
        added = [line[1:] for line in diff.split(f"+++ b/{file}")[1].splitlines() if line.startswith("+")]
        (tmp_path / file).write_text("\n".join(added).replace("\n\n\n", "\n"), encoding="utf-8")
        assert any(text.startswith('"') for text in landed(diff, tmp_path))


@pytest.mark.parametrize("name", METRICS)
def test_the_heading_of_every_metric_is_explained(name):
    assert re.search(rf"^\| {re.escape(METRICS[name].heading)} \| \w", page("docs/reading.md"), re.MULTILINE)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#: ]+)(?:#[^)]*)?\)", text):
        assert (path.parent / target).exists(), f"{path.name} links to {target}, which is not there"


def test_the_architecture_page_names_every_room():
    rows = re.findall(
        r"^\| `([a-z_/]+?)/?(?:\.py)?` \|", page("docs/architecture.md").split("## The way")[0], re.MULTILINE
    )
    assert [name for name in rows if "/" not in name and "." not in name] == [r for r in ROOMS if r != "__main__"]


def test_the_architecture_page_names_what_exists():
    text = page("docs/architecture.md")
    named = set(re.findall(r"`([a-z_]+(?:\.[a-zA-Z_]+)+)`", text))
    roots = {room for room in ROOMS} | {"ball_features"}
    for name in sorted(named):
        if name.split(".")[0] not in roots or name.endswith((".py", ".md", ".html", ".json")):
            continue
        parts = name.removeprefix("ball_features.").split(".")
        target = ball_features
        for depth, part in enumerate(parts, 1):
            if not hasattr(target, part):
                importlib.import_module(".".join(["ball_features", *parts[:depth]]))
            target = getattr(target, part)


def test_every_dependency_is_explained():
    import tomllib

    required = tomllib.loads(page("pyproject.toml"))["project"]["dependencies"]
    table = page("docs/architecture.md").split("## Dependencies")[1]
    for requirement in required:
        assert f"| {re.split('[<>=!~ ]', requirement)[0]} |" in table, requirement


@pytest.mark.parametrize(
    ("text", "count"),
    [("a\n\n    import os\n    print(1)\n", 1), ("    ball fit a.h5\n", 0), ("```python\nx = 1\n```\n", 1), ("", 0)],
)
def test_code_is_found_in_pages(text, count):
    assert len(python_code(text)) == count
