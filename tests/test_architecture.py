"""The rooms of the package: imports point to rooms above, private names stay in their module."""

import ast
from pathlib import Path

import pytest

import ball_features

PACKAGE = Path(ball_features.__file__).parent
# From the top of the house to its bottom; a module imports from its own room and from rooms before it.
ROOMS = [
    "errors",
    "config",
    "threads",
    "files",
    "dataset",
    "audit",
    "cache",
    "extraction",
    "models",
    "evaluation",
    "bundles",
    "reporting",
    "runs",
    "deployment",
    "demo",
    "cli",
    "__main__",
]
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(module: str) -> str:
    return module.split(".")[1]


def imports(path: Path):
    """(imported module, imported names, line) of each import from the package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            if (node.module or "").split(".")[0] == "ball_features":
                yield node.module, [alias.name for alias in node.names], node.lineno
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "ball_features":
                    yield alias.name, [], node.lineno


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_upward(path):
    own = path.relative_to(PACKAGE).with_suffix("").parts
    if own == ("__init__",):
        return
    own_room = ROOMS.index(own[0])
    for module, names, line in imports(path):
        for name in names:
            assert not (name.startswith("_") and name != "__version__"), f"{path}:{line} imports private {name}"
        assert names or module != "ball_features", f"{path}:{line} imports the whole package"
        for source in sources(module, names):
            assert ROOMS.index(room_of(source)) <= own_room, f"{path}:{line} imports from a lower room: {source}"


def sources(module: str, names: list[str]) -> list[str]:
    """The modules that an import reaches: `from ball_features import fit` is one of the room that `fit` lives in."""
    if module != "ball_features":
        return [module]
    return [f"ball_features.{ball_features._ROOM.get(name, name)}" for name in names if name != "__version__"]


def test_the_packages_own_names_have_rooms():
    assert sources("ball_features", ["fit", "__version__", "cache"]) == [
        "ball_features.runs.fit",
        "ball_features.cache",
    ]
    assert sources("ball_features.models.mlp", ["MLPHead"]) == ["ball_features.models.mlp"]
    assert set(ball_features._ROOM) == set(ball_features.__all__)


def test_every_module_has_a_room():
    for path in MODULES:
        first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        assert first == "__init__" or first in ROOMS


def test_only_the_cache_uses_h5py():
    users = {p.parent.name for p in MODULES if "import h5py" in p.read_text(encoding="utf-8")}
    assert users == {"cache"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_global_seeding(path):
    if path.name == "weights.py":
        return  # torchvision's builders draw from the global generator; the call is fenced by fork_rng
    text = path.read_text(encoding="utf-8")
    assert "np.random.seed(" not in text
    assert "torch.manual_seed(" not in text
    assert "random.seed(" not in text


def test_each_module_declares_its_names():
    for path in MODULES:
        if path.name == "__init__.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [n for n in tree.body if isinstance(n, ast.Assign | ast.AnnAssign) and "__all__" in ast.unparse(n)]
        assert names, f"{path} has no __all__"
