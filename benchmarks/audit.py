"""Time and peak memory of `ball audit` by the number of images.

    python benchmarks/audit.py --counts 2000,20000
    python benchmarks/audit.py --counts 1000,10000,100000 --crops [--keep DIR]
    python benchmarks/audit.py --images IMAGES
    python benchmarks/audit.py --index 1000000,5000000
    python benchmarks/audit.py --embeddings 20000,100000

Drawn smears, a hundredth of each kind of planted copy among them, or a folder of one's own. With --crops the images are
tiles of 64 px, cut from wide drawn fields without overlap, and one in a hundred is planted again: turned by quarters,
maybe mirrored, and encoded anew; what is printed beside is how many of these the audit puts into one group. The time
is that of the whole command, by the clock and by what it used of the processor, the peak the resident memory of its
process. With --keep DIR the synthetic images stay there and are found again. --index is the index of features alone, on
drawn vectors of which 100,000 have a planted neighbour, by cells of even size and by 2 sqrt(n) cells. --embeddings is
the search for images whose embedding is far from all others (`--cache`), alone, on drawn rows of 1,920 numbers.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ball_features.audit import indicators, neighbours
from ball_features.dataset.smear_field import CLASSES, draw_field, draw_stain
from ball_features.dataset.synthetic import draw_smears
from ball_features.threads import one_blas_thread

_PART = 500  # images that one process draws at a time
_CROP_PX, _GRID, _SCALE = 64, 10, 0.6  # side of a crop, crops along a side of a field, its scale (a smear's is 1)
_PLANTED = "copy-of-"


def draw_part(folder: Path, number: int, images: int) -> None:
    """Draw some series into a folder of their own, and move them over with numbers that go on from part to part."""
    own = folder / f"part-{number}"
    each = images // 4
    planted = max(1, each // 100)
    draw_smears(
        own,
        per_class=each - 3 * planted,
        seed=number,
        duplicates=planted,
        near_duplicates=planted,
        shared_fields=planted,
        overlay_share=0.5,
        series=5,
    )
    for file in own.glob("*/*.jpg"):
        stem, place = file.stem.rsplit("-", 1)
        target = folder / "images" / file.parent.name
        target.mkdir(parents=True, exist_ok=True)
        file.rename(target / f"{stem}-{number * each + int(place):05d}.jpg")


def draw_crops(folder: Path, number: int) -> None:
    """Cut a field of each class, drawn with a stain of its own, into crops; the last of them is the first, turned."""
    rng = np.random.default_rng(number)
    for name, look in CLASSES.items():
        target = folder / "images" / name
        target.mkdir(parents=True, exist_ok=True)
        field = draw_field(rng, look, draw_stain(rng), _GRID * _CROP_PX, _GRID * _CROP_PX, _SCALE)
        tiles = field.reshape(_GRID, _CROP_PX, _GRID, _CROP_PX, 3).swapaxes(1, 2).reshape(-1, _CROP_PX, _CROP_PX, 3)
        for index, tile in enumerate(tiles[:-1]):
            Image.fromarray(tile).save(target / f"{number:04}-{index:02}.jpg", quality=90)
        turned = np.rot90(tiles[0], int(rng.integers(1, 4)))
        turned = np.ascontiguousarray(turned[:, ::-1] if rng.random() < 0.5 else turned)
        Image.fromarray(turned).save(target / f"{number:04}-{_PLANTED}00.jpg", quality=75)


def draw(folder: Path, images: int, crops: bool) -> Path:
    """Drawn smears, or crops of 64 px, by all cores."""
    if not (folder / "images").is_dir():
        parts = max(1, images // (len(CLASSES) * _GRID**2 if crops else _PART))
        with ProcessPoolExecutor() as pool:
            if crops:
                list(pool.map(draw_crops, [folder] * parts, range(parts)))
            else:
                list(pool.map(draw_part, [folder] * parts, range(parts), [images // parts] * parts))
    return folder / "images"


def planted(out: Path) -> str:
    """How many planted crops are in one group with what they were made of, and the images of groups of other crops."""
    with out.open(newline="") as file:
        group = {row["path"]: row["group"] for row in csv.DictReader(file)}
    pairs = [(path, path.replace(_PLANTED, "")) for path in group if _PLANTED in path]
    found = sum(group[one] == group[other] for one, other in pairs)
    members: dict[str, int] = {}
    for number in group.values():
        members[number] = members.get(number, 0) + 1
    others = sum(count for count in members.values() if count > 1) - 2 * found
    return f" {found} of {len(pairs)} | {others} |"


def measure_index(count: int, flat: bool) -> str:
    """A row of the table: build an index of `count` vectors, and search it for the planted neighbours."""
    queries, dim = 100_000, 48
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(20_000, dim, generator=generator)
    rows = torch.randn(count, dim, generator=generator)
    rows += centre[torch.randint(len(centre), (count,), generator=generator)]
    rows[-queries:] = rows[:queries] + 0.5 * torch.randn(queries, dim, generator=generator)
    rows /= rows.norm(dim=1, keepdim=True)
    owner = torch.arange(count)
    usual = neighbours._MOST_PER_CELL, neighbours._MOST_COMPARED
    if flat:
        neighbours._MOST_PER_CELL = neighbours._MOST_COMPARED = count
    with one_blas_thread():
        start = time.process_time()
        index = neighbours.InvertedFile(rows, owner=owner)
        built = time.process_time() - start
        found = index.search(rows[-queries:], 10, query_owner=owner[-queries:])[1]
        searched = time.process_time() - start - built
    neighbours._MOST_PER_CELL, neighbours._MOST_COMPARED = usual
    share = float((found == torch.arange(queries)[:, None]).any(1).float().mean())
    return f"{built:.0f} | {built / count * 1e6:.1f} | {searched / queries * 1e6:.0f} | {100 * share:.1f} |"


def measure_embeddings(count: int) -> str:
    """A row of the table: find the nearest of `count` drawn embeddings."""
    rng = np.random.default_rng(0)
    embeddings = np.empty((count, 1920), np.float16)
    for first in range(0, count, 4096):
        embeddings[first : first + 4096] = rng.standard_normal(embeddings[first : first + 4096].shape, np.float32)
    start = time.perf_counter(), time.process_time()
    indicators._neighbour_distance(embeddings)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds, worked = time.perf_counter() - start[0], time.process_time() - start[1]
    return f"{seconds:.0f} | {worked:.0f} | {peak:.0f} |"


def measure(folder: Path, out: Path) -> tuple[float, float, float]:
    """Seconds, processor seconds and peak MB of one audit."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "ball_features", "audit", str(folder), "--out", str(out), "--quiet"]
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"The audit of {folder} failed.")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="2000,20000")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--crops", action="store_true", help="crops of 64 px in place of smears")
    parser.add_argument("--index", default="", help="numbers of vectors of an index")
    parser.add_argument("--embeddings", default="", help="numbers of drawn embeddings")
    arguments = parser.parse_args()
    if arguments.embeddings:
        print("| embeddings | s | processor s | peak MB |\n| ---: | ---: | ---: | ---: |", flush=True)
        for count in sorted(int(part) for part in arguments.embeddings.split(",")):  # the peak is of all so far
            print(f"| {count} | {measure_embeddings(count)}", flush=True)
        return
    if arguments.index:
        print("| vectors | cells | build s | us a vector | search us a query | neighbours found % |")
        print("| ---: | --- |" + " ---: |" * 4, flush=True)
        for count in (int(part) for part in arguments.index.split(",")):
            for flat in (False, True):
                kind = "2 sqrt(n)" if flat else "even"
                print(f"| {count} | {kind} | {measure_index(count, flat)}", flush=True)
        return
    more = (" planted pairs found | other images in groups |", " ---: | ---: |") if arguments.crops else ("", "")
    print(f"| images | s | processor s | peak MB |{more[0]}\n| ---: | ---: | ---: | ---: |{more[1]}")
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "groups.csv"
        if arguments.images is not None:
            seconds, worked, peak = measure(arguments.images, out)
            print(f"| {arguments.images.name} | {seconds:.0f} | {worked:.0f} | {peak:.0f} |", flush=True)
            return
        for count in (int(part) for part in arguments.counts.split(",")):
            folder = draw((arguments.keep or Path(name)) / str(count), count, arguments.crops)
            out.unlink(missing_ok=True)
            seconds, worked, peak = measure(folder, out)
            cells = f"| {count} | {seconds:.0f} | {worked:.0f} | {peak:.0f} |"
            print(cells + (planted(out) if arguments.crops else ""), flush=True)


if __name__ == "__main__":
    main()
