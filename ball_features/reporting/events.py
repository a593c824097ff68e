"""A run's curves and figures as TensorBoard event files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from ball_features.errors import DataError, require_extra

__all__ = ["write_events"]


def write_events(run: Path, folder: Path) -> int:
    """Write loss and accuracy of every training, and the table's figures, below `folder/RUN`.

    Args:
        run: Folder written by `ball fit`.
        folder: TensorBoard's --logdir.

    Returns:
        Trainings written.

    Raises:
        DataError: The run cannot be read, or the folder not be written.
        MissingExtraError: The package tensorboard is not installed.
    """
    require_extra("tensorboard", "tensorboard", "--tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    curves: dict[str, list[dict[str, str]]] = {}
    try:
        with (run / "curves.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                curves.setdefault(f"{row['model']}-{row['repeat']}-{row['fold']}", []).append(row)
        models = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["models"]
        for name, rows in curves.items():
            with SummaryWriter(str(folder / run.name / name)) as writer:
                for row in rows:
                    for key in ("train_loss", "val_loss", "train_accuracy", "val_accuracy"):
                        part, _, kind = key.partition("_")
                        writer.add_scalar(f"{kind}/{part}", float(row[key]), int(row["epoch"]))
        for model in models:
            with SummaryWriter(str(folder / run.name / f"test-{model['model']}")) as writer:
                for key in ("accuracy", "recall", "f1", "log_loss"):
                    if model[key] is not None:
                        writer.add_scalar(f"test/{key}", model[key], 0)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"The curves of {run} cannot be written to {folder} ({error}). Give another folder.") from error
    return len(curves)
