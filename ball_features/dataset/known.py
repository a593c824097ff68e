"""Public data sets, recognised by the hashes of their files, and their download."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ball_features.dataset.manifest import Manifest, scan
from ball_features.errors import DataError, MissingExtraError

__all__ = ["KNOWN", "KnownDataset", "download", "known_dataset", "recognise"]

# From this share of known files on, a folder is the data set.
_RECOGNISED = 0.5


@dataclass(frozen=True)
class KnownDataset:
    """A public data set.

    Attributes:
        name: name of its table in `data/`.
        handle: its address on Kaggle.
        images: number of files.
        citation: publications that its authors ask to be cited.
    """

    name: str
    handle: str
    images: int
    citation: str

    @property
    def table(self) -> Path:
        """The table of its files: beside the package in a checkout, inside it when installed."""
        file = f"{self.name}.csv"
        beside = Path(__file__).parents[2] / "data" / file
        return beside if beside.is_file() else Path(__file__).with_name(file)

    def files(self) -> dict[str, str]:
        """SHA-256 of each file, by its path that begins with the class folder."""
        with self.table.open(newline="", encoding="utf-8") as file:
            return {row["path"]: row["sha256"] for row in csv.DictReader(file)}


KNOWN: dict[str, KnownDataset] = {
    "mehradaria-leukemia": KnownDataset(
        "mehradaria-leukemia",
        "mehradaria/leukemia",
        3256,
        "Ghaderzadeh et al. 2021, doi 10.1002/int.22753; data by Aria et al. 2021, doi 10.34740/KAGGLE/DSV/2175623",
    )
}


def known_dataset(sha256: Sequence[str]) -> tuple[KnownDataset, int, int] | None:
    """The known data set that half of these files or more belong to, with their number, and that of missing ones.

    Args:
        sha256: content hash of each file.
    """
    for known in KNOWN.values():
        if not known.table.is_file():
            continue
        hashes = set(known.files().values())
        found = sum(digest in hashes for digest in sha256)
        if found >= _RECOGNISED * len(sha256) and found:
            return known, found, len(hashes - set(sha256))
    return None


def recognise(sha256: Sequence[str]) -> str:
    """Describe the known data set that these files belong to, in one line; "" where there is none.

    Args:
        sha256: content hash of each file.
    """
    match = known_dataset(sha256)
    if match is None:
        return ""
    known, found, missing = match
    total = len(set(known.files().values()))
    rest = f"; {missing} of its {total} different images are not here" if missing else ""
    return (
        f"Known data set: {found} of {len(sha256)} files are of {known.handle}{rest}. What an audit found in it is in "
        f"data/{known.name}.csv. Cite {known.citation}."
    )


def download(name: str = "mehradaria-leukemia", *, log: Callable[[str], None] = lambda line: None) -> Manifest:
    """Fetch a known data set with kagglehub and check every file.

    Args:
        name: key of `KNOWN`.
        log: function that is called with one line per step.

    Returns:
        Manifest of the images, which lie in kagglehub's own cache.

    Raises:
        MissingExtraError: kagglehub is not installed.
        DataError: The download failed, or files differ from those that are known.
    """
    known = KNOWN[name]
    by_hand = (
        f"By hand: download kaggle.com/datasets/{known.handle} in a browser, unpack it, and give the folder that holds "
        "Original/ and Segmented/ to `ball audit` and `ball extract`."
    )
    try:
        import kagglehub  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtraError(
            f"Fetching {known.handle} needs the package kagglehub. Install it: pip install 'ball-features[download]'. "
            f"{by_hand}"
        ) from error
    log(f"Fetching {known.handle}; its terms are its authors'. Cite {known.citation}.")
    try:
        folder = Path(kagglehub.dataset_download(known.handle))
    except Exception as error:  # kagglehub raises many kinds: no network, no account, not found
        raise DataError(
            f"{known.handle} could not be downloaded ({type(error).__name__}: {error}). {by_hand}"
        ) from error
    roots = [item.parent for item in sorted(folder.rglob("Original")) if item.is_dir()]
    if not roots:
        raise DataError(f"{folder} holds no folder called Original, expected one. {by_hand}")
    manifest = scan(roots[0])
    files = known.files()
    contents = set(files.values())
    got = dict(zip(manifest.path, manifest.sha256, strict=True))
    strange = [path for path, digest in got.items() if digest not in contents]
    moved = [path for path, digest in got.items() if digest in contents and files.get(path) != digest]
    missing = files.keys() - got.keys()
    if strange or moved or missing:
        first = next(iter([*strange, *moved]), "")
        raise DataError(
            f"{roots[0]} differs from the published data set: {len(strange)} files are others, {len(moved)} have the "
            f"name of another{f' (first: {first})' if first else ''}, {len(missing)} are missing. Delete "
            f"{folder} and try again."
        )
    return manifest
