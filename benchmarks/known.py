"""Write the tables of a known data set in `data/` from its images, by an audit.

python benchmarks/known.py IMAGES [--name mehradaria-leukemia] [--out data]
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from ball_features.audit.findings import audit, write_groups
from ball_features.dataset.known import KNOWN
from ball_features.dataset.manifest import scan


def main() -> None:
    """Audit and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--name", default="mehradaria-leukemia", choices=sorted(KNOWN))
    parser.add_argument("--out", type=Path, default=Path("data"))
    arguments = parser.parse_args()
    manifest = scan(arguments.images)
    found = audit(manifest)
    table = arguments.out / f"{arguments.name}.csv"
    write_groups(found, table)
    digest = dict(zip(manifest.path, manifest.sha256, strict=True))
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        for place, (path, *rest) in enumerate(rows):
            writer.writerow((path, digest[path] if place else "sha256", *rest))
    with (arguments.out / f"{arguments.name}-pairs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("first", "second", "kind", "shift_x_px", "shift_y_px", "orientation", "score"))
        for pair in found.pairs:
            ends = (found.path[pair.first], found.path[pair.second])
            writer.writerow((*ends, pair.kind, pair.shift_x_px, pair.shift_y_px, pair.orientation, pair.score))


if __name__ == "__main__":
    main()
