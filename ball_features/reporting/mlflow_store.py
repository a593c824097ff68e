"""A run in an MLflow store: settings as parameters, figures of every model as metrics, files as artefacts."""

from __future__ import annotations

import math
import os
import re
import time
from pathlib import Path
from typing import Any

from ball_features.errors import DataError, require_extra
from ball_features.evaluation.results import ModelRow
from ball_features.evaluation.stored_results import read_measurement
from ball_features.files import read_csv
from ball_features.reporting.joint import has_own_page
from ball_features.reporting.run_list import read_summary

__all__ = ["EXPERIMENT", "store_path", "write_mlflow"]

EXPERIMENT = "ball"
_LONGEST = 500  # characters of a parameter's value; every version of MLflow takes these
_BATCH = 900  # metrics sent at once; MLflow takes 1,000
_CURVES = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")


def store_path(store: str) -> Path:
    """Where a store lies on this machine; for that of a server a path that means nothing."""
    return Path(re.sub(r"^(file:(//)?|sqlite:///)", "", store))


def write_mlflow(run: Path, store: str) -> str:
    """Write a run to MLflow: parameters, metrics and files, with a nested run for each model of the table.

    Training curves are metrics of the model's run, with the epoch as step; those of the first split are written.

    Args:
        run: folder written by `ball fit`.
        store: folder of a file store, or the address of a tracking server or a database, as MLflow takes it.

    Returns:
        MLflow's id of the run.

    Raises:
        DataError: the run cannot be read, or the store does not take it.
        MissingExtraError: the package mlflow is not installed.
    """
    require_extra("mlflow", "mlflow", "The export to MLflow")
    from mlflow.entities import Metric, Param, RunTag  # pyright: ignore[reportMissingImports]
    from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]

    summary = read_summary(run)
    models = [] if has_own_page(run) else read_measurement(run).models
    address = store
    if not re.match(r"[a-z][a-z0-9+.-]+:", store):
        address = Path(store).resolve().as_uri()
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow from 3.7 on asks for it; a folder was named
    now = int(1000 * time.time())

    def metrics(values: dict[str, float], step: int = 0) -> list[Any]:
        return [Metric(_name(key), value, now, step) for key, value in values.items() if math.isfinite(value)]

    try:
        client = MlflowClient(tracking_uri=address)
        found = client.get_experiment_by_name(EXPERIMENT)
        experiment = client.create_experiment(EXPERIMENT) if found is None else found.experiment_id
        parent = client.create_run(experiment, run_name=summary.name, tags={"mlflow.note.content": summary.note})
        number = parent.info.run_id
        facts = {**summary.settings, "protocol": summary.protocol, "cache": summary.data, "images": str(summary.images)}
        params = [Param(_name(key), value[:_LONGEST]) for key, value in facts.items()]
        for start in range(0, len(params), 100):
            client.log_batch(number, params=params[start : start + 100])
        best = {"accuracy": summary.accuracy, "accuracy_low": summary.low, "accuracy_high": summary.high}
        client.log_batch(number, metrics=metrics(best), tags=[RunTag("best_model", summary.model)])
        client.log_artifacts(number, str(run))
        curves = _curves(run)
        for row in models:
            tags = {"mlflow.parentRunId": number, "kind": row.kind}
            own = client.create_run(experiment, run_name=f"{summary.name}/{row.model}", tags=tags).info.run_id
            logged = metrics(_figures(row))
            for epoch, values in curves.get(row.model, ()):
                logged += metrics(values, epoch)
            for start in range(0, len(logged), _BATCH):
                client.log_batch(own, metrics=logged[start : start + _BATCH])
            client.log_batch(own, params=[Param("model", row.model)])
            client.set_terminated(own)
        client.set_terminated(number)
    except Exception as error:  # each store has errors of its own
        message = f"The run is in {run}, but MLflow's store {store} did not take it ({type(error).__name__}: {error})."
        raise DataError(f"{message} Give another store.") from error
    return str(number)


def _name(text: str) -> str:
    """A name of the characters that MLflow takes."""
    return re.sub(r"[^\w\-. /]", "_", text)


def _figures(row: ModelRow) -> dict[str, float]:
    ends = {
        f"{name}_{end}": own[place] for name, own in row.intervals.items() for place, end in enumerate(("low", "high"))
    }
    return row.values | ends | {"fit_s": row.fit_s, "predict_s": row.predict_s, "p_against_best": row.p_against_best}


def _curves(run: Path) -> dict[str, list[tuple[int, dict[str, float]]]]:
    """Training of each model on its first split: model -> (epoch, name -> value)."""
    if not (run / "curves.csv").exists():
        return {}
    found: dict[str, list[tuple[int, dict[str, float]]]] = {}
    first: dict[str, tuple[str, str]] = {}
    for row in read_csv(run / "curves.csv"):
        key = (row["repeat"], row["fold"])
        if first.setdefault(row["model"], key) == key:
            values = {name: float(row[name]) for name in _CURVES}
            found.setdefault(row["model"], []).append((int(row["epoch"]), values))
    return found
