"""Fuzz every reader of bytes: images, sheets, caches, bundles, runs, bodies of the server.

    python benchmarks/fuzz.py images --seconds 60        (or sheets, caches, bundles, ...)

Needs atheris (pip install atheris; libFuzzer, coverage-guided). A reader may give a result or one of `ball`'s own
errors; anything else is written to a file and ends the run with an exit code that is not 0.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")

with atheris.instrument_imports(include=["ball_features"]):
    from ball_features.bundles.bundle import read_bundle
    from ball_features.cache import read_cache, verify_cache
    from ball_features.config.toml import read_settings
    from ball_features.dataset.archives import index_archive, read_entry
    from ball_features.dataset.decode import decode_bytes
    from ball_features.dataset.sheet import read_sheet  # noqa: F401  (instrumented)
    from ball_features.dataset.sheet_formats import read_tables
    from ball_features.errors import BallError
    from ball_features.reporting.stored_run import read_stored_run

OLD = ROOT / "tests" / "data" / "v0.1.0"
PLACE = Path(tempfile.mkdtemp(prefix="fuzz"))


def images() -> tuple[Callable[[bytes], object], list[bytes]]:
    """Image files, of at most 4 megapixels so that a second is many of them."""
    from tests import hostile

    seeds = [data for name, data, _ in hostile.hostile(hostile.picture()) if len(data) < 40_000 and "cut" not in name]
    return lambda data: decode_bytes(data, 4_000_000), seeds


def _at(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    path = PLACE / name

    def one(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return one


def sheets() -> tuple[Callable[[bytes], object], list[bytes]]:
    """Sheets as text; the first byte chooses the ending."""
    seeds = [
        b"\0path,label\na/1.jpg,a\n",
        b'\0path;Group\r\n"a;b";1\r\n',
        "\0path\tß\n".encode("utf-16"),
        b"\1a\tb\n1\t2\n",
    ]

    def one(data: bytes) -> object:
        path = PLACE / f"sheet.{('csv', 'tsv', 'xlsx', 'parquet')[data[0] % 4 if data else 0]}"
        path.write_bytes(data[1:])
        return read_tables(path)

    return one, seeds


def caches() -> tuple[Callable[[bytes], object], list[bytes]]:
    """Caches; whole ones are verified too."""
    from tests.made import clouds, write_cache

    small = write_cache(PLACE / "seed.h5", *clouds(2, dim=4)).read_bytes()

    def read(path: Path) -> object:
        read_cache(path, verify=False)
        return verify_cache(path)

    return _at("a.h5", read), [small]


def bundles() -> tuple[Callable[[bytes], object], list[bytes]]:
    """`bundle.json` beside sound files."""
    folder = Path(shutil.copytree(OLD / "bundles" / "mlp", PLACE / "bundle"))
    seed = (folder / "bundle.json").read_bytes()
    return _at("bundle/bundle.json", lambda path: read_bundle(path.parent)), [seed]


def arrays() -> tuple[Callable[[bytes], object], list[bytes]]:
    """The arrays of a bundle, beside a sound `bundle.json`."""
    folder = Path(shutil.copytree(OLD / "bundles" / "mlp", PLACE / "bundle"))
    seed = (folder / "reference.safetensors").read_bytes()
    return _at("bundle/reference.safetensors", lambda path: read_bundle(path.parent)), [seed]


def runs() -> tuple[Callable[[bytes], object], list[bytes]]:
    """Files of a run; the first byte chooses which."""
    source = next((OLD / "runs").iterdir())
    folder = Path(shutil.copytree(source, PLACE / "run"))
    names = ("metrics.json", "run.json", "predictions.csv")
    sound = {name: (folder / name).read_bytes() for name in names}

    def one(data: bytes) -> object:
        name = names[data[0] % 3 if data else 0]
        (folder / name).write_bytes(data[1:])
        try:
            return read_stored_run(folder)
        finally:
            (folder / name).write_bytes(sound[name])

    return one, [bytes([number]) + sound[name][:20_000] for number, name in enumerate(names)]


def patients() -> tuple[Callable[[bytes], object], list[bytes]]:
    """Bodies of /v1/patients."""
    from ball_features.deployment.patient_requests import patient_request, read_request
    from ball_features.errors import ConfigError

    kind = patient_request(64)

    def one(data: bytes) -> object:
        try:
            return read_request(kind, 64, data)
        except ConfigError:
            return None

    return one, [b'{"patient": "P", "images": [{"name": "a", "data": "AAAA"}]}']


def archives() -> tuple[Callable[[bytes], object], list[bytes]]:
    """Archives of images; the first byte chooses the kind."""
    packed, plain = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.jpg", b"pixels" * 20)
        archive.writestr("../b.png", b"more")
    with tarfile.open(fileobj=plain, mode="w") as archive:
        item = tarfile.TarInfo("a/1.jpg")
        item.size = 6
        archive.addfile(item, io.BytesIO(b"pixels"))

    def one(data: bytes) -> None:
        content = data[1:]
        found = index_archive(io.BytesIO(content), "a.tar" if data[:1] == b"\1" else "a.zip")
        for entry in list(found.values())[:20]:
            with contextlib.suppress(OSError):
                read_entry(lambda start, end: content[start:end], entry)

    return one, [b"\0" + packed.getvalue(), b"\1" + plain.getvalue()]


def settings() -> tuple[Callable[[bytes], object], list[bytes]]:
    """Configuration files."""
    return _at("a.toml", read_settings), [b'models = ["mlp"]\n[head]\nepochs = 3\n']


TARGETS = {own.__name__: own for own in (images, sheets, caches, bundles, arrays, runs, patients, archives, settings)}


def _numbered(seeds: list[bytes]) -> Iterator[tuple[str, bytes]]:
    yield from ((f"seed{number}", data) for number, data in enumerate(seeds))


def main() -> None:
    """Fuzz one reader."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    read, seeds = TARGETS[options.target]()
    corpus = PLACE / "corpus"
    corpus.mkdir()
    for name, data in _numbered(seeds):
        (corpus / name).write_bytes(data)

    def one(data: bytes) -> None:
        try:
            read(data)
        except BallError as error:
            if not str(error):
                raise RuntimeError("an error without a message") from error

    limits = [
        f"-max_total_time={options.seconds}",
        "-rss_limit_mb=4096",
        "-timeout=200",
        "-max_len=200000",
        "-verbosity=1",
    ]
    one(seeds[0])  # imports what is imported late, before seconds count
    atheris.Setup([sys.argv[0], str(corpus), *limits, "-print_final_stats=1", f"-artifact_prefix={PLACE}/"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
