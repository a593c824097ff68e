"""Extractions in parts: the rows of one process, also where workers, nodes or the command itself are killed.

    python benchmarks/shards.py equal IMAGES --weights FILE --limit 300
    python benchmarks/shards.py killed IMAGES --weights FILE --limit 300 --kills 6
    python benchmarks/shards.py killed --drawn 400 --input-px 64 --kills 10
    python benchmarks/shards.py nodes --drawn 400 --input-px 64 --parts 4 --after 6

equal extracts the images in one process, in two processes at once with `--shard` and `ball merge`, and on a Ray
cluster of two workers. killed extracts them on two nodes, kills a worker at random moments, and at last the command
itself; it then goes on with the same command on another number of nodes. What is checked is that no shard that was
finished is written again, and that rows are those of one process. nodes kills one of two nodes with all its processes
while it works on a shard. Nodes are raylets of this machine with one core each. Without IMAGES, drawn crops go through
a network of random weights. A difference ends the script with an error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from audit import draw
from machine import describe

from ball_features import ExtractConfig, read_cache
from ball_features.errors import BallError
from ball_features.extraction.ray_tasks import Cluster, extract_with_ray

BALL = [sys.executable, "-m", "ball_features"]


def settings(arguments: argparse.Namespace) -> list[str]:
    """Flags of the network."""
    words = ["--backbone", arguments.backbone, "--weights", arguments.weights, "--precision", arguments.precision]
    words += ["--views", str(arguments.views), "--input-px", str(arguments.input_px)]
    return words + (["--limit", str(arguments.limit)] if arguments.limit else [])


def ended(process: subprocess.Popen[str]) -> tuple[dict[str, Any], float]:
    """What a command printed as JSON, and the processor seconds it took."""
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"Failed: {process.args}")
    return json.loads(text), usage.ru_utime + usage.ru_stime


def started(*words: str | Path) -> subprocess.Popen[str]:
    """Start a command of `ball`."""
    quiet = [] if words[0] == "merge" else ["--quiet"]
    command = [*BALL, *map(str, words), "--json", *quiet]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def differences(one: Path, two: Path) -> list[str]:
    """Parts of two caches that are not equal bit for bit."""
    first, second = read_cache(one), read_cache(two)
    names = ["embeddings", "path", "label", "sha256", "committed"]
    found = [name for name in names if not np.array_equal(getattr(first, name), getattr(second, name))]
    found += [key for key, own in first.shortcuts.items() if not np.array_equal(own, second.shortcuts[key])]
    found += [name for name in ("rejected", "view", "fingerprint") if getattr(first, name) != getattr(second, name)]
    return found


def verdict(one: Path, two: Path) -> str:
    """Whether two caches are equal, in words; an error where they are not."""
    if found := differences(one, two):
        sys.exit(f"DIFFERENT: {', '.join(found)}")
    return "equal"


@contextlib.contextmanager
def cluster_of(nodes: int) -> Any:
    """A Ray cluster of so many raylets of this machine, a core each; and the raylets besides the first."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster_utils: Any = import_module("ray.cluster_utils")
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        yield cluster, [cluster.add_node(num_cpus=1) for _ in range(nodes - 1)]
    finally:
        cluster.shutdown()


def workers(cluster: Any) -> list[int]:
    """Processes of a cluster that extract a shard now."""
    raylets = {node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()}
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent in raylets and (entry / "cmdline").read_bytes().startswith(b"ray::_extract_shard"):
                found.append(int(entry.name))
    return sorted(found)


def equal(arguments: argparse.Namespace, folder: Path, images: Path) -> None:
    """Print what one process, two shards and two workers of Ray take, and whether their rows are equal."""
    print(describe("ray", "torch"), end="\n\n")
    print("| how | images | s | processor s | rows |\n| --- | ---: | ---: | ---: | --- |", flush=True)
    words, one = settings(arguments), folder / "one.h5"
    start = time.perf_counter()
    done, worked = ended(started("extract", images, "--out", one, *words))
    seconds = time.perf_counter() - start
    print(f"| one process | {done['images']} | {seconds:.0f} | {worked:.0f} | {done['attributes']['precision']} |")
    start = time.perf_counter()
    parts = [folder / f"{number}.h5" for number in (1, 2)]
    running = [
        started("extract", images, "--out", part, "--shard", f"{number}/2", *words)
        for number, part in enumerate(parts, start=1)
    ]
    worked = sum(ended(process)[1] for process in running)
    merged, more = ended(started("merge", *parts, "--out", folder / "merged.h5"))
    seconds = time.perf_counter() - start
    same = verdict(one, folder / "merged.h5")
    print(f"| `--shard`, two at once, merged | {merged['images']} | {seconds:.0f} | {worked + more:.0f} | {same} |")
    with cluster_of(2) as (cluster, _):
        start = time.perf_counter()
        out = folder / "ray.h5"
        done, _ = ended(
            started("extract", images, "--out", out, "--engine", "ray", "--address", cluster.address, *words)
        )
        seconds = time.perf_counter() - start
    print(f"| Ray, two workers | {done['images']} | {seconds:.0f} | | {verdict(one, out)} |")


class Watch(threading.Thread):
    """Looks at the shards of an extraction: which are finished, and whether one is written again after that."""

    def __init__(self, folder: Path) -> None:
        """Start to look at a folder, which need not exist."""
        super().__init__(daemon=True)
        self.folder, self.finished, self.again, self.ends = folder, {}, set(), threading.Event()
        self.start()

    def run(self) -> None:
        """Look until `ends` is set."""
        seen: dict[str, tuple[int, int]] = {}
        while not self.ends.wait(0.1):
            for file in self.folder.glob("*-of-*.h5"):
                with contextlib.suppress(OSError, BallError):  # replaced or removed meanwhile
                    about = file.stat()
                    stamp = about.st_ino, about.st_mtime_ns
                    if file.name in self.finished:
                        self.again |= {file.name} if self.finished[file.name] != stamp else set()
                    elif seen.get(file.name) != stamp:
                        seen[file.name] = stamp
                    elif time.time() - about.st_mtime > 2 and read_cache(file, embeddings=False).complete:
                        self.finished[file.name] = stamp  # its writer has noted its seconds too


def killed(arguments: argparse.Namespace, folder: Path, images: Path) -> None:
    """Print what became of an extraction whose workers were killed, and at last the command itself."""
    rng, words = random.Random(arguments.seed), settings(arguments)
    one, out = folder / "one.h5", folder / "all.h5"
    whole, _ = ended(started("extract", images, "--out", one, *words))
    watch = Watch(folder / ".all.h5.shards")
    kills, moments = 0, []
    with cluster_of(2) as (cluster, others):
        command = ("extract", images, "--out", out, "--engine", "ray", "--address", cluster.address, *words)
        start = time.perf_counter()
        process = started(*command)
        while process.poll() is None and (kills < arguments.kills or not watch.finished):
            time.sleep(rng.uniform(*arguments.every))
            there = workers(cluster)
            if there and kills < arguments.kills:
                os.kill(rng.choice(there), signal.SIGKILL)
                kills += 1
                moments.append(f"{time.perf_counter() - start:.0f}")
        if process.poll() is not None:
            sys.exit(f"The extraction ended after {kills} kills. Give more images, or fewer kills.")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        at_end = time.perf_counter() - start
        for node in others if arguments.nodes < 2 else []:
            cluster.remove_node(node)
        for _ in range(arguments.nodes - 2):
            cluster.add_node(num_cpus=1)
        until = time.monotonic() + 30
        while workers(cluster) and time.monotonic() < until:  # Ray ends those of a command that is gone
            time.sleep(0.2)
        finished = len(watch.finished)
        done, _ = ended(started(*command))
        seconds = time.perf_counter() - start
    watch.ends.set()
    watch.join()
    same = verdict(one, out)
    print(describe("ray", "torch"), end="\n\n")
    print(f"{kills} workers killed (s after the start: {', '.join(moments)}), the command after {at_end:.0f} s.")
    print(
        f"Then {finished} shards were finished. On {arguments.nodes} nodes the same command computed {done['computed']}"
    )
    print(f"of {whole['images']} images and found {done['reused']}; {seconds:.0f} s in all. Rows {same}.")
    if watch.again:
        sys.exit(f"Finished shards were written again: {', '.join(sorted(watch.again))}")
    print(f"No shard was written again once it was finished ({len(watch.finished)} were seen so).")


def nodes(arguments: argparse.Namespace, folder: Path, images: Path) -> None:
    """Print what became of an extraction that lost a node."""
    one, out = folder / "one.h5", folder / "all.h5"
    ended(started("extract", images, "--out", one, *settings(arguments)))
    told: list[str] = []
    with cluster_of(2) as (cluster, (other,)):
        own = {other.all_processes["raylet"][0].process.pid}

        def there() -> set[int]:
            return {number for number in workers(cluster) if _parent(number) in own}

        def lose() -> None:
            while not (first := there()):
                time.sleep(0.2)
            time.sleep(arguments.after)
            still = there() == first
            cluster.remove_node(other, allow_graceful=False)
            told.append(f"node killed {'in' if still else 'between'} its shards, {arguments.after:.0f} s after a start")

        thread = threading.Thread(target=lose)
        thread.start()
        start = time.perf_counter()
        config = ExtractConfig(
            arguments.backbone, weights=arguments.weights, input_px=arguments.input_px, precision=arguments.precision,
            views=arguments.views, limit=arguments.limit,
        )  # fmt: skip
        done = extract_with_ray(images, out, config, cluster=Cluster(cluster.address, arguments.parts), log=told.append)
        thread.join()
        seconds = time.perf_counter() - start
    print(describe("ray", "torch"), end="\n\n")
    told = [line for line in told if line.startswith(("Ray", "node"))]
    print(f"{'; '.join(told)}\n{done.images} images, {seconds:.0f} s; rows {verdict(one, out)}")


def _parent(process: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for run in (equal, killed, nodes):
        own = commands.add_parser(run.__name__)
        own.add_argument("images", type=Path, nargs="?", help="folder of images; drawn crops if left out")
        own.add_argument("--drawn", type=int, default=400, help="number of drawn crops")
        own.add_argument("--limit", type=int, default=0, help="number of images of the folder; 0 for all")
        own.add_argument("--backbone", default="densenet121")
        own.add_argument("--weights", default="random")
        own.add_argument("--precision", default="fp32")
        own.add_argument("--input-px", type=int, default=0)
        own.add_argument("--views", type=int, default=1)
        own.add_argument("--folder", help="folder for images and caches; the system's temporary one if left out")
        own.set_defaults(run=run)
        if run is killed:
            own.add_argument("--kills", type=int, default=6)
            own.add_argument("--every", type=float, nargs=2, default=(1.0, 8.0), help="seconds from kill to kill")
            own.add_argument("--nodes", type=int, default=3, help="nodes of the second run")
            own.add_argument("--seed", type=int, default=0)
        if run is nodes:
            own.add_argument("--parts", type=int, default=0)
            own.add_argument("--after", type=float, default=3.0, help="seconds of a shard after which its node is lost")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        images = arguments.images or draw(Path(name) / "drawn", arguments.drawn, True)
        arguments.run(arguments, Path(name), images)


if __name__ == "__main__":
    main()
