"""Training curves and figures of a run as TensorBoard event files."""

from __future__ import annotations

import math
from pathlib import Path

from ball_features.errors import DataError, require_extra
from ball_features.evaluation.stored_results import read_measurement
from ball_features.files import read_csv
from ball_features.outputs import require_no_link

__all__ = ["write_events"]

_CURVES = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")


def write_events(run: Path, folder: Path) -> int:
    """Write loss and accuracy of every training, and every metric of the table, below `folder/RUN`.

    Args:
        run: folder written by `ball fit`.
        folder: folder that TensorBoard shows.

    Returns:
        Number of trainings written.

    Raises:
        DataError: the run cannot be read, or the folder cannot be written, or has links where the curves belong.
        MissingExtraError: the package tensorboard is not installed.
    """
    require_extra("tensorboard", "tensorboard", "TensorBoard output")
    from torch.utils.tensorboard import SummaryWriter

    curves: dict[str, list[dict[str, str]]] = {}
    models = read_measurement(run).models
    require_no_link(folder / run.name)
    try:
        for row in read_csv(run / "curves.csv"):
            curves.setdefault(f"{row['model']}-{row['repeat']}-{row['fold']}", []).append(row)
        for name in [*curves, *(f"test-{model.model}" for model in models)]:
            require_no_link(folder / run.name / name)
        for name, rows in curves.items():
            with SummaryWriter(str(folder / run.name / name)) as writer:
                for row in rows:
                    for key in _CURVES:
                        part, _, kind = key.partition("_")
                        writer.add_scalar(f"{kind}/{part}", float(row[key]), int(row["epoch"]))
        for model in models:
            with SummaryWriter(str(folder / run.name / f"test-{model.model}")) as writer:
                for key, value in model.values.items():
                    if not math.isnan(value):
                        writer.add_scalar(f"test/{key}", value, 0)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"The curves of {run} cannot be written to {folder} ({error}). Give another folder.") from error
    return len(curves)
