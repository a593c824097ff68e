"""Time and memory of matching a sheet with a folder: `python benchmarks/sheet.py [--rows 100000]`."""

from __future__ import annotations

import argparse
import csv
import resource
import tempfile
import time
from pathlib import Path

from ball_features.dataset.sheet import read_sheet


def main() -> None:
    """Write a sheet of many rows, read it, and match it with as many files, in several spellings of their paths."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    rows = parser.parse_args().rows
    files = [f"class_{number % 4}/patient_{number % 997}/image_{number}.png" for number in range(rows)]
    same = [f"class_{number % 4}/patient_{number}/image.png" for number in range(rows)]
    spellings = {
        "relative paths": (files, files),
        "Windows paths": (files, ["D:\\data\\" + name.replace("/", "\\") for name in files]),
        "stems": (files, [Path(name).stem for name in files]),
        "one name in all folders": (same, [name.split("/", 1)[1] for name in same]),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, (images, cells) in spellings.items():
            sheet = Path(folder) / "sheet.csv"
            with sheet.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(("path", "label", "patient", "site", "split", "note"))
                for number, cell in enumerate(cells):
                    writer.writerow((cell, number % 4, f"P{number % 997}", "AB"[number % 2], "train", f"n{number}"))
            start = time.process_time()
            found = read_sheet(sheet).rows_of(images)
            seconds = time.process_time() - start
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
            print(f"{name}: {sum(found.listed)} of {rows} rows in {seconds:.1f} s of one core, {memory:.0f} MB so far")


if __name__ == "__main__":
    main()
