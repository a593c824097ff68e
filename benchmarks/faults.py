"""Kill commands, let their disks and files fail, flip bits of what they wrote; compare what is left with a quiet run.

    python benchmarks/faults.py kill FOLDER --count 50     (--command fit: that one alone; each signal so many times)
    python benchmarks/faults.py errors FOLDER              (EIO, ESTALE, ENOSPC; small disks; a clock going back)
    python benchmarks/faults.py disks FOLDER               (small disks alone; the server with none to write to)
    python benchmarks/faults.py during FOLDER              (files changed or removed meanwhile, two writers, Ctrl-C)
    python benchmarks/faults.py order FOLDER               (bytes on disk before their name; needs strace)
    python benchmarks/faults.py flip CACHE --count 200
    python benchmarks/faults.py cost CACHE                 (time of the checksums of a read)

FOLDER is made and filled with drawn smears. Every line is a count; exit code 1 where one is wrong. Commands run as
children of one process that has loaded their libraries (`forked.py`), so that faults fall into their own work; the
audit's forest, which takes most of its time and writes nothing, has four trees there. `kill` and `errors` need a C
compiler, `errors` root for the small disk.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forked
import numpy as np
from results import left_whole, result

from ball_features.cache import read_cache, verify_cache
from ball_features.dataset.synthetic import draw_smears
from ball_features.errors import CacheError

COMMANDS = (
    *("extract", "fit", "audit", "assess", "evaluate", "patients", "segment", "export", "onnx", "labels", "merge"),
    *("tune", "adapt", "demo", "sheet", "predict", "report", "page", "compare"),
)
KEEPING = ("labels", "merge", "sheet", "adapt")  # which never replace a file: where theirs is whole, they say so
NETWORK = [
    "--backbone",
    "densenet121",
    "--weights",
    "random",
    "--views",
    "1",
    "--precision",
    "fp32",
    "--input-px",
    "64",
]
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
SEED = 0


def arguments(name: str, folder: Path, out: Path) -> list[str]:
    """The command line of a command that reads what `prepare` made in `folder`, and writes into `out`."""
    images, cache, bundle = str(folder / "images"), str(folder / "cache.h5"), str(folder / "run/models/logistic")
    sites, table = str(folder / "sites.csv"), str(folder / "patients.csv")
    adapted, one = str(folder / "sites/models/logistic"), ["--models", "logistic", "--repeats", "1", "--jobs", "1"]
    saved = [*one, "--save", "logistic"]
    fit = ["--models", "logistic,lda", "--repeats", "2", "--jobs", "1"]
    return {
        "extract": ["extract", images, "--out", str(out / "a.h5"), "--batch-size", "2", *NETWORK],
        "fit": ["fit", cache, *fit, "--save", "logistic", "--out", str(out), "--name", "run"],
        "audit": ["audit", images, "--out", str(out / "groups.csv"), "--page", str(out / "page.html")],
        "assess": [
            "assess",
            images,
            "--out",
            str(out),
            "--models",
            "logistic",
            "--repeats",
            "1",
            "--jobs",
            "1",
            *NETWORK,
        ],
        "evaluate": ["evaluate", bundle, "--cache", cache, "--out", str(out)],
        "segment": ["segment", images, "--out", str(out)],
        "labels": ["labels", cache, "--models", "logistic", "--folds", "3", "--jobs", "1", "--out", str(out / "a.csv")],
        "merge": ["merge", *(str(folder / f"shard{number}.h5") for number in (1, 2)), "--out", str(out / "a.h5")],
        "tune": [*("tune", cache, "--trials", "3", "--epochs", "2", "--jobs", "1", "--out", str(out), "--name", "run")],
        "export": ["export", cache, "--csv", str(out / "a.csv"), "--parquet", str(out / "a.parquet")],
        "onnx": ["export", bundle, "--onnx", str(out / "a.onnx"), "--card", str(out / "card.md")],
        "patients": ["evaluate", bundle, images, "--sheet", table, "--out", str(out)],
        "predict": ["predict", bundle, images, "--sheet", table, "--out", str(out / "a.csv")],
        "sheet": ["sheet", images, "--out", str(out / "a.csv")],
        "demo": ["demo", "--out", str(out), "--per-class", "6"],
        "sites": ["fit", cache, "--groups", sites, "--adapt", "auto", *saved, "--out", str(out), "--name", "sites"],
        "adapt": ["adapt", adapted, images, "--site", "new", "--mixed", "--out", str(out / "new")],
        "report": ["report", str(folder / "run"), "--figures", str(out / "figures")],
        "page": ["report", str(folder / "run"), str(folder / "run"), "--out", str(out / "page.html")],
        "compare": ["compare", cache, str(folder / "other.h5"), *one, "--out", str(out), "--name", "run"],
    }[name]


def prepare(folder: Path, per_class: int = 8, classes: int = 4) -> None:
    """Draw smears of so many classes, extract them and fit a bundle, once."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ |= {"XDG_CACHE_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    forked.load()
    _few_trees()
    if not (folder / "images").exists():
        draw_smears(folder / "images", per_class=per_class, seed=1, size_px=96)
        (folder / "images" / "truth.json").rename(folder / "truth.json")
        for left_out in sorted((folder / "images").iterdir())[classes:]:
            shutil.rmtree(left_out)
    files = sorted(path.relative_to(folder / "images").as_posix() for path in (folder / "images").rglob("*.*"))
    for name, column, number in (("sites", "site", 3), ("patients", "patient", 4 * classes)):
        rows = "".join(f"{path},{column}{place % number}\n" for place, path in enumerate(files))
        (folder / f"{name}.csv").write_text(f"path,{column}\n{rows}", encoding="utf-8")
    images, other = str(folder / "images"), [*NETWORK[:-1], "32"]
    made = {"cache.h5": [*arguments("extract", folder, folder)[:3], str(folder / "cache.h5"), *NETWORK]}
    made |= {"run": arguments("fit", folder, folder), "sites": arguments("sites", folder, folder)}
    made |= {"other.h5": ["extract", images, "--out", str(folder / "other.h5"), *other]}
    for number in (1, 2):
        shard = f"shard{number}.h5"
        made |= {shard: ["extract", images, "--shard", f"{number}/2", "--out", str(folder / shard), *NETWORK]}
    for place, words in made.items():
        if not (folder / place).exists():
            done = forked.run(words, folder / "log")
            if done.code:
                raise SystemExit(done.said)


def _few_trees() -> None:
    import sklearn.ensemble as ensemble

    forest: Any = ensemble.ExtraTreesClassifier
    ensemble.ExtraTreesClassifier = lambda trees=100, **settings: forest(min(trees, 4), **settings)


def fresh(folder: Path, name: str) -> Path:
    """An empty folder."""
    out = folder / name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    return out


def quiet_run(folder: Path, name: str) -> tuple[bytes, float]:
    """What a command writes that nothing disturbs, and its seconds."""
    out = fresh(folder, "whole")
    forked.load_what(arguments(name, folder, out), folder / "log")  # and checks of the precision are remembered
    out = fresh(folder, "whole")
    done = forked.run(arguments(name, folder, out), folder / "log")
    if done.code:
        raise SystemExit(f"{name}: {done.said}")
    return result(name, out), done.seconds


def faults_after(folder: Path, name: str, out: Path, expected: bytes) -> list[str]:
    """What is wrong with what a disturbed command left, and after the same command has run again."""
    found = [f"left half: {left_whole(out)}"] if left_whole(out) else []
    if name == "adapt" and (out / "new" / "bundle.json").exists():  # whole, of what could be read; never replaced
        shutil.rmtree(out / "new")
    done = forked.run(arguments(name, folder, out), folder / "log")
    if name in KEEPING and done.code == 2 and "exists" in done.said and result(name, out) == expected:
        pass
    elif done.code:
        found.append(f"again: exit code {done.code}: {done.said[-300:]}")
    elif result(name, out) != expected:
        found.append("again: another result")
    if left_whole(out):
        found.append(f"again half: {left_whole(out)}")
    return found + [f"left over: {path.name}" for path in out.rglob("*.partial")]


def kill(folder: Path, name: str, count: int, seed: int = SEED) -> int:
    """Kill a command so many times by each signal, each time run it again to its end; the number of faults.

    Half of the kills fall at moments spread over the time that it takes, half before calls spread over those that
    change its output: these take a small part of the time, and are where something can be lost.
    """
    draw = random.Random(seed)
    expected, takes = quiet_run(folder, name)
    steps = _steps(folder, name)
    faults, killed, reached = 0, {}, set[str]()
    for number in SIGNALS:
        for by_call in (False, True):
            for part in range((count + (not by_call)) // 2):
                place = (part + draw.random()) / ((count + (not by_call)) // 2)
                for shorter in (1.0, 0.8, 0.5, 0.25):  # a run may end before its time, and make fewer calls
                    environment = {"FAULT_STEPS": "/killed/", "FAULT_KILL": str(int(number))} if by_call else {}
                    environment |= {"FAULT_AT": str(1 + int(place * shorter * steps))} if by_call else {}
                    out, log, start = fresh(folder, "killed"), folder / "log", time.perf_counter()
                    pid = forked.begin(arguments(name, folder, out), log, environment)
                    if not by_call:
                        time.sleep(place * shorter * takes)
                        os.kill(pid, number)
                    ended = forked.end(pid, log, start)
                    if ended.code == -number:
                        break
                    if ended.code:
                        faults += 1
                        print(f"{name} {number.name}: exit code {ended.code}: {ended.said[-300:]}", flush=True)
                killed[number, by_call] = killed.get((number, by_call), 0) + (ended.code == -number)
                reached |= set(re.findall(r"steps/s \((.*?)\)", ended.said)[-1:])
                for fault in faults_after(folder, name, out, expected):
                    faults += 1
                    print(f"{name} {number.name} at {place:.2f}, by call {by_call}: {fault}", flush=True)
    by = ", ".join(
        f"{killed[number, False]} at moments and {killed[number, True]} at calls by {number.name}" for number in SIGNALS
    )
    print(
        f"kill {name}: {takes:.1f} s and {steps} calls a run, killed {by}, {faults} faults",
        *sorted(reached),
        flush=True,
    )
    return faults


def _steps(folder: Path, name: str) -> int:
    """Number of calls by which a command changes its output."""
    tally = folder / "tally"
    tally.write_bytes(b"")
    out = fresh(folder, "whole")
    forked.run(arguments(name, folder, out), folder / "log", {"FAULT_STEPS": "/whole/", "FAULT_TALLY": str(tally)})
    return tally.stat().st_size


def tell(name: str, ended: forked.Ended) -> str:
    """What is wrong with how a command has ended that was disturbed: it must be done, or say why not in a message."""
    if ended.code not in (0, 2) or "Traceback" in ended.said:
        return f"{name}: exit code {ended.code}: {ended.said[-400:]}"
    return "" if ended.code == 0 or "Error:" in ended.said else f"{name}: no message: {ended.said[-200:]}"


def errors(folder: Path, names: tuple[str, ...], most: int) -> int:
    """Let calls of the operating system fail, or so many of them that are drawn; the number of faults."""
    faults = 0
    for name in names:
        expected, _ = quiet_run(folder, name)
        calls = [
            *(("write", "/faulty/", number) for number in (errno.EIO, errno.ESTALE, errno.ENOSPC)),
            *(("fsync", "/faulty/", number) for number in (errno.EIO, errno.ENOSPC)),
            ("rename", "/faulty/", errno.EIO),
            ("open", "/faulty/", errno.ESTALE),
            *((call, "/images/", number) for call in ("open", "read") for number in (errno.EIO, errno.ESTALE)),
            ("read", "cache.h5", errno.EIO),
        ]
        times_of = ((1, 1), (2, 1), (5, 1), (9, 1), (3, 10_000), (20, 10_000))
        cases = [(*call, *times) for call in calls for times in times_of]
        drawn = random.Random(SEED).sample(cases, most) if most else cases
        for call, part, number, first, times in drawn:
            out = fresh(folder, "faulty")
            fault = {"FAULT_PATH": part, "FAULT_CALL": call, "FAULT_ERRNO": str(number)}
            fault |= {"FAULT_FIRST": str(first), "FAULT_COUNT": str(times)}
            ended = forked.run(arguments(name, folder, out), folder / "log", fault)
            what = f"{errno.errorcode[number]} of {call} {first} of {part}"
            found = [tell(name, ended), *faults_after(folder, name, out, expected)]
            faults += len(said := [one for one in found if one])
            print("".join(f"{name}, {what}: {one}\n" for one in said), end="", flush=True)
        ended = forked.run(arguments(name, folder, fresh(folder, "faulty")), folder / "log", {"FAULT_CLOCK": "600"})
        if ended.code or result(name, folder / "faulty") != expected:
            faults += 1
            print(f"{name}, clock: exit code {ended.code}: {ended.said[-300:]}", flush=True)
        print(f"errors {name}: {len(drawn) + 1} runs, {faults} faults so far", flush=True)
        faults += _small_disks(folder, name, expected)
    return faults


def shimmed(folder: Path) -> int:
    """Begin this script again under the shim; its exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    shim, source = folder / "faults.so", Path(__file__).with_name("faults.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(shim), str(source), "-ldl"], check=True)
    environment = os.environ | {"FAULTS": "on", "LD_PRELOAD": str(shim)}
    return subprocess.run([sys.executable, *sys.argv], env=environment).returncode


def _small_disks(folder: Path, name: str, expected: bytes) -> int:
    """Run a command on disks that fill up, and on one that is read-only; the number of faults."""
    faults = 0
    for options in ("size=8k", "size=64k", "size=300k", "size=1m", "ro"):
        out = fresh(folder, "small")
        with mounted(out, options):
            ended = forked.run(arguments(name, folder, out), folder / "log")
            found = [tell(name, ended)]
            if ended.code == 0 and result(name, out) != expected:
                found.append("exit code 0 and another result")
            if left_whole(out):
                found.append(f"left half: {left_whole(out)}")
            found += [f"left over: {path.name}" for path in out.rglob("*.partial")]
        faults += len(said := [one for one in found if one])
        print("".join(f"{name} on a disk of {options}: {one}\n" for one in said), end="", flush=True)
    print(f"small disks {name}: 5 runs, {faults} faults", flush=True)
    return faults


def serve(folder: Path) -> int:
    """Let the server answer where no folder can be written to: full ones, and read-only ones; the number of faults."""
    answers = {}
    for options in ("", "size=4k", "ro"):
        out, log = fresh(folder, "served"), folder / "log"
        log.unlink(missing_ok=True)  # an address that an earlier server has written
        with mounted(out, options) if options else contextlib.nullcontext():
            with contextlib.suppress(OSError):
                (out / "full").write_bytes(bytes(1 << 20))
            places = ("TMPDIR", "HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
            start = time.perf_counter()
            words = ["serve", str(folder / "run/models/logistic"), "--port", "0"]
            pid = forked.begin(words, log, dict.fromkeys(places, str(out)) if options else {})
            try:
                answers[options] = _answers(folder / "images", log)
            finally:
                os.kill(pid, signal.SIGINT)
                ended = forked.end(pid, log, start)
        if ended.code:
            answers[options] = [f"exit code {ended.code}: {ended.said[-300:]}"]
    faults = sum(found != answers[""] or len(found) < 3 for found in answers.values())
    print(f"serve: {len(answers)} runs, {[found for found in answers.values() if len(found) < 3]}, {faults} faults")
    return faults


def _answers(images: Path, log: Path) -> list[str]:
    """What a server that writes its address into a log says of an image, a large one, and a patient."""
    import base64
    import io
    import urllib.request

    from PIL import Image

    address = None
    for _ in range(1800):
        said = log.read_text(errors="replace") if log.exists() else ""
        address = address or re.search(r"http://[\d.:]+\n", said)
        if address:
            break
        time.sleep(0.1)
    if not address:
        return [f"no address: {said[-300:]}"]
    file = sorted(images.rglob("*.jpg"))[0]
    large = io.BytesIO()
    Image.open(file).resize((2000, 2000)).save(large, "PNG")
    patient = {"images": [{"name": "a", "data": base64.b64encode(own).decode()} for own in (file.read_bytes(),) * 3]}
    found = []
    for place, kind, body in (
        ("/v1/predict?map=true", "application/octet-stream", file.read_bytes()),
        ("/v1/predict", "application/octet-stream", large.getvalue()),
        ("/v1/patients", "application/json", json.dumps(patient).encode()),
    ):
        try:
            request = urllib.request.Request(address[0].strip() + place, body, {"Content-Type": kind})
            with urllib.request.urlopen(request, timeout=120) as answer:
                found.append(answer.read().decode())
        except OSError as error:
            return [*found[:1], repr(error)]
    return found


@contextlib.contextmanager
def mounted(out: Path, options: str) -> Iterator[None]:
    """A small disk in memory."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(out)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(out)], check=True)


def during(folder: Path, names: tuple[str, ...], count: int) -> int:
    """Change and remove images while a command reads them, put them back and run it again; the number of faults."""
    draw, faults, images = random.Random(SEED), 0, folder / "images"
    files = sorted(path for path in images.rglob("*") if path.is_file())
    for name in names:
        expected, takes = quiet_run(folder, name)
        for turn in range(count):
            out, log, start = fresh(folder, "changing"), folder / "log", time.perf_counter()
            pid = forked.begin(arguments(name, folder, out), log)
            time.sleep(draw.uniform(0.1, 0.9) * takes)
            chosen = draw.sample(files, 4)
            kept = {path: path.read_bytes() for path in chosen}
            chosen[0].unlink()
            chosen[1].write_bytes(kept[chosen[1]][: len(kept[chosen[1]]) // 2])
            chosen[2].write_bytes(kept[chosen[3]])
            if turn % 4 == 3:
                os.kill(pid, signal.SIGINT)
            ended = forked.end(pid, log, start)
            for path, content in kept.items():
                path.write_bytes(content)
            said = [] if turn % 4 == 3 and ended.code == 130 else [tell(name, ended)]
            if name == "extract":  # its cache must be good for the images as they are again
                said += faults_after(folder, name, out, expected)
            faults += len(said := [one for one in said if one])
            print("".join(f"{name}, files changed: {one}\n" for one in said), end="", flush=True)
        print(
            f"during {name}: {count} runs, a quarter of them interrupted by Ctrl-C, {faults} faults so far", flush=True
        )
    for name in names:
        expected, _ = quiet_run(folder, name)
        out, start = fresh(folder, "twice"), time.perf_counter()
        pids = [forked.begin(arguments(name, folder, out), folder / f"log{number}") for number in (0, 1)]
        ends = [forked.end(pid, folder / f"log{number}", start) for number, pid in enumerate(pids)]
        said = [tell(name, ended) for ended in ends]
        busy = [ended for ended in ends if ended.code == 2]
        if name == "extract" and not (len(busy) == 1 and f"process {pids[1 - ends.index(busy[0])]} on" in busy[0].said):
            said.append(f"the second writer is not told who writes: {[ended.said[-200:] for ended in ends]}")
        said += faults_after(folder, name, out, expected)
        faults += len(said := [one for one in said if one])
        print("".join(f"{name} twice at once: {one}\n" for one in said), end="", flush=True)
    print(f"two at once: {len(names)} commands, {faults} faults so far", flush=True)
    return faults


def order(folder: Path, names: tuple[str, ...]) -> int:
    """Follow the calls of commands: what has its final name must be on disk, for a power cut; the number of faults."""
    faults = 0
    for name in names:
        out, trace = fresh(folder, "ordered"), folder / "calls"
        calls = "trace=write,pwrite64,fsync,fdatasync,rename,renameat,renameat2"
        command = ["strace", "-f", "-y", "-qq", "-s", "0", "-o", str(trace), "-e", calls]
        own = [sys.executable, "-m", "ball_features", *arguments(name, folder, out)]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run([*command, *own], env=environment, capture_output=True, text=True)
        found = [f"exit code {done.returncode}: {done.stderr[-300:]}"] if done.returncode else []
        renamed, more = unordered(trace.read_text(errors="replace").splitlines(), str(out))
        found += more
        faults += len(found)
        print("".join(f"{name}: {one}\n" for one in found), end="", flush=True)
        print(f"order {name}: {renamed} names given, {len(found)} faults", flush=True)
    return faults


def unordered(lines: list[str], out: str) -> tuple[int, list[str]]:
    """Number of renames below `out`, and what was not on disk before one, or whose folder was not after it."""
    dirty: set[str] = set()
    waiting: dict[str, str] = {}  # process -> file or folder that it syncs
    named: list[str] = []
    faults: list[str] = []
    for line in lines:
        process, _, call = line.partition(" ")
        place = re.search(r"\d+<([^>]*)>", call)
        if found := re.match(r"\s*rename\w*\(.*?\"(.*?)\".*?\"(.*?)\"", call):
            source, target = found[1], found[2]
            if target.startswith(out):
                lost = sorted(path for path in dirty if path == source or path.startswith(f"{source}/"))
                faults += [f"{path} is not on disk when {target} gets its name" for path in lost]
                named.append(target)
            dirty = {path for path in dirty if path != source}
        elif re.match(r"\s*p?write", call) and place:
            dirty.add(place[1])
        elif re.match(r"\s*f(data)?sync", call) and place and "<unfinished" in call:
            waiting[process] = place[1]
        elif re.match(r"\s*(<\.\.\. )?f(data)?sync", call):
            path = place[1] if place else waiting.pop(process, "")
            dirty.discard(path)
            named = [target for target in named if str(Path(target).parent) != path]
    count = sum("rename" in line and out in line for line in lines)
    return count, [*faults, *(f"the folder of {target} is not on disk" for target in named)]


def flip(path: Path, count: int) -> int:
    """Flip one bit of a cache, so many times; the number that nothing notices."""
    data, draw, silent = path.read_bytes(), np.random.default_rng(SEED), 0
    copy = path.with_suffix(".flipped.h5")
    for _ in range(count):
        changed = bytearray(data)
        changed[int(draw.integers(len(data)))] ^= 1 << int(draw.integers(8))
        copy.write_bytes(changed)
        try:
            noticed = not verify_cache(copy).sound
        except CacheError:
            noticed = True
        silent += not noticed
    copy.unlink()
    print(f"flip: {count} bits of {len(data)} bytes flipped, {count - silent} noticed, {silent} not")
    return silent


def cost(path: Path) -> int:
    """Time a read with and without its checksums, the best of five."""
    seconds = {}
    for verify in (False, True):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            np.asarray(read_cache(path, verify=verify).embeddings).sum(dtype=np.float32)
            times.append(time.perf_counter() - start)
        seconds[verify] = min(times)
    extra = seconds[True] - seconds[False]
    print(f"cost: {path.stat().st_size / 1e6:.0f} MB, {1e3 * extra:.0f} ms for the checksums of one read")
    return 0


def main() -> int:
    """Do what the command line asks for; the number of faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("kill", "errors", "disks", "during", "order", "flip", "cost"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--command", default="all", choices=(*COMMANDS, "serve", "all"))
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--seed", type=int, default=SEED, help="of the moments of kills")
    parser.add_argument("--images", type=int, default=8, help="drawn images of each class, where FOLDER is new")
    parser.add_argument("--classes", type=int, default=4, help="drawn classes, where FOLDER is new")
    options = parser.parse_args()
    if options.what == "flip":
        return flip(options.path, options.count or 200)
    if options.what == "cost":
        return cost(options.path)
    names, folder = COMMANDS if options.command == "all" else (options.command,), options.path.resolve()
    if options.what in ("kill", "errors") and "FAULTS" not in os.environ:
        return shimmed(folder)
    prepare(folder, options.images, options.classes)
    if options.what == "kill":
        return sum(kill(folder, name, options.count or 50, options.seed) for name in names)
    if options.what == "disks":
        served = serve(folder) if options.command in ("all", "serve") else 0
        own = [name for name in names if name != "serve"]
        return served + sum(_small_disks(folder, name, quiet_run(folder, name)[0]) for name in own)
    if options.what == "order":
        return order(folder, names)
    return (
        errors(folder, names, options.count) if options.what == "errors" else during(folder, names, options.count or 8)
    )


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
