"""Licences of what is installed with `ball`: each permits use and passing on, and SECURITY.md lists it."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A licence's name as packages write it -> its name in SECURITY.md.
KNOWN = {
    r"apache.*": "Apache-2.0",
    r"bsd.*": "BSD",
    r"mit-cmu": "MIT-CMU",
    r"mit.*": "MIT",
    r"python software foundation.*|license agreement for matplotlib.*": "PSF",
    r"copyright \(c\) 2001-2002 enthought.*": "BSD",
}
UNSTATED = {"skops": "MIT", "torchcodec": "BSD"}  # in their repositories; the metadata names none


def packages():
    values = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    own = values["optional-dependencies"]
    extras = [item for name, items in own.items() if name not in ("test", "dev") for item in items]
    return sorted({re.match(r"[\w.-]+", item)[0] for item in [*values["dependencies"], *extras]})


def licence(name):
    values = metadata.metadata(name)
    stated = values.get("License-Expression") or ""
    kinds = [own.rpartition("::")[2].strip() for own in values.get_all("Classifier") or () if own.startswith("License")]
    texts = [stated, *kinds, " ".join((values.get("License") or "").split())]
    for text in texts:
        for pattern, known in KNOWN.items():
            if re.fullmatch(pattern, text.lower()):
                return known
    return UNSTATED.get(name, f"unknown: {texts}")


@pytest.mark.parametrize("name", packages())
def test_each_licence_is_permissive_and_listed(name):
    try:
        own = licence(name)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    listed = re.search(rf"^- {re.escape(own)}: (.*?)(?=\n- |\n\n|\Z)", SECURITY, re.MULTILINE | re.DOTALL)
    assert listed is not None, own
    assert name in re.split(r"[\s,.]+", listed[1])


SECURITY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
