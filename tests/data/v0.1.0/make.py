"""Make the files of this folder with ball 0.1.0: `python make.py CHECKOUT`, where CHECKOUT is that version's source.

Kept beside what it made, so that the files of a later version can be made alike. The images are drawn, the network is
DenseNet-121 with random weights, so nothing here comes from a patient.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(tempfile.gettempdir()) / "ball-0.1.0"  # files name the folder they were made in
NETWORK = """
import torch
torch.manual_seed(0)
layers = (torch.nn.Conv2d(3, 16, 7, stride=4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
torch.jit.script(torch.nn.Sequential(*layers).eval()).save("small.pt")
"""
RANDOM = ("--backbone", "densenet121", "--weights", "random", "--precision", "fp32", "--quiet")
SMALL = ("--backbone", "file:small.pt", "--normalize", "half", "--input-px", 64, "--precision", "fp32", "--quiet")
MODELS = ("mlp", "logistic", "xgboost")  # a bundle for each file format; that of robust-views is of the small network


def main(checkout: Path) -> None:
    """Make everything anew, in a temporary folder, and copy it here."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    ball = [sys.executable, "-m", "ball_features"]

    def run(*words: object) -> None:
        subprocess.run([*ball, *map(str, words)], check=True, env=environment, cwd=HERE)

    own_folder = Path(__file__).resolve().parent
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    for script in ("make.py", "nearest_mean.py"):
        shutil.copy(own_folder / script, HERE)
    draw = "from ball_features import draw_smears; draw_smears('images', per_class=5, seed=1, size_px=96, duplicates=1)"
    subprocess.run([sys.executable, "-c", draw], check=True, env=environment, cwd=HERE)
    (HERE / "images" / "truth.json").unlink()
    run("extract", "images", "--out", "plain.h5", "--views", 1, *RANDOM)
    run("extract", "images", "--out", "views.h5", *RANDOM)
    run("extract", "images", "--out", "seeded.h5", "--views", 3, "--recipe", "report,zoom+grey", "--seed", 3, *RANDOM)
    channels = ("--channels", "original,segmented", "--twins", "none")
    run("extract", "images", "--out", "channels.h5", "--views", 1, *channels, *RANDOM)
    interrupted = ("extract", "images", "--out", "interrupted.h5", "--views", 2, "--batch-size", 2, *RANDOM)
    with subprocess.Popen([*ball, *map(str, interrupted)], env=environment, cwd=HERE) as process:
        while process.poll() is None and not committed(checkout, HERE / "interrupted.h5"):
            time.sleep(0.01)
        process.kill()
    run("audit", "images", "--out", "groups.csv", "--quiet")
    shutil.rmtree(HERE / "groups_overlays", ignore_errors=True)
    subprocess.run([sys.executable, "-W", "ignore", "-c", NETWORK], check=True, cwd=HERE)
    run("extract", "images", "--out", "small.h5", "--views", 4, "--recipe", "grey,zoom,reinhard", *SMALL)
    fit = ("--repeats", 2, "--jobs", 1, "--save", "all", "--quiet", "--out", "runs")
    models = ",".join([*MODELS, "colour"])
    run("fit", "views.h5", "--name", "table", "--models", models, "--hidden", 8, "--epochs", 20, *fit)
    run("fit", "channels.h5", "--name", "channels", "--models", "logistic", *fit)
    run("fit", "small.h5", "--name", "small", "--models", "robust-views", *fit)
    (HERE / "bundles").mkdir()
    for name in MODELS:
        (HERE / "runs" / "table" / "models" / name).rename(HERE / "bundles" / name)
    (HERE / "runs" / "channels" / "models" / "logistic").rename(HERE / "bundles" / "channels")
    (HERE / "runs" / "small" / "models" / "robust-views").rename(HERE / "bundles" / "robust-views")
    shutil.rmtree(HERE / "runs" / "channels")
    shutil.rmtree(HERE / "runs" / "small")
    shutil.rmtree(HERE / "runs" / "table" / "models")
    (HERE / "runs" / "table" / "report.html").unlink()
    (HERE / "small.h5").unlink()
    # What is imported by name is 0.1.0, then this folder.
    environment["PYTHONPATH"] = os.pathsep.join([str(checkout), str(HERE)])
    subprocess.run([sys.executable, "-c", "import make; make.own()"], check=True, env=environment, cwd=HERE)
    for lock in HERE.glob("*.lock"):
        lock.unlink()
    for bundle in sorted(path.name for path in (HERE / "bundles").iterdir()):
        trust = ("--trust",) if bundle == "own" else ()
        target = f"predictions-{bundle}.csv"
        run("predict", f"bundles/{bundle}", "images", "--out", target, "--precision", "fp32", "--quiet", *trust)
        (HERE / f"{target}.json").unlink()
    shutil.rmtree(HERE / "__pycache__", ignore_errors=True)
    shutil.copytree(HERE, own_folder, dirs_exist_ok=True)


def committed(checkout: Path, cache: Path) -> bool:
    """Whether a cache that another process writes holds an image."""
    code = f"from ball_features import read_cache; print(read_cache({str(cache)!r}, embeddings=False).committed.sum())"
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    return done.returncode == 0 and int(done.stdout) > 0


def own() -> None:
    """A bundle of an estimator that is none of the package's, in a process where 0.1.0 comes first."""
    import numpy as np
    from ball_features.deployment.bundle import write_bundle
    from nearest_mean import NearestMean

    from ball_features import read_cache

    cache = read_cache(HERE / "plain.h5")
    X = np.asarray(cache.embeddings, dtype=np.float32)
    classes, y = np.unique(cache.label, return_inverse=True)
    facts = json.loads((HERE / "bundles" / "logistic" / "bundle.json").read_text(encoding="utf-8"))
    kept = (
        "backbone",
        "weights",
        "weights_sha256",
        "normalize",
        "input_px",
        "precision",
        "seed",
        "view_seed",
        "resize",
    )
    write_bundle(
        HERE / "bundles" / "own",
        name="own",
        estimator=NearestMean().fit(X[:, 0], y),
        classes=classes.tolist(),
        train=X,
        train_path=cache.path.tolist(),
        validation=X,
        truth=y,
        facts={key: facts.get(key, 0) for key in kept} | {"recipe": "plain", "views": [0]},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
