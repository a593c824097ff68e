"""What is known of the images beside their pixels: the layout of their folder, and a sheet."""

from __future__ import annotations

from dataclasses import dataclass

from ball_features.config.fields import COMMON, Config, option

__all__ = ["CollectionConfig"]


def _column(words: str) -> str:
    return option("", f"Column of the sheet with {words}; found by its usual names if left out.", panel="Images")


@dataclass(frozen=True)
class CollectionConfig(Config):
    """Settings of how a collection of images is read; none of them changes an embedding."""

    sheet: tuple[str, ...] = option(
        (),
        "Table with a row for each image or each patient, a path or an address: .csv (any separator), .tsv, .xlsx, "
        ".json or .parquet; given several times, the tables are joined. Columns are found by usual names: path or "
        "image, label or diagnosis, patient, site or hospital, split, group; all others are kept.",
        panel=COMMON,
        path=True,
    )
    layout: str = option(
        "auto",
        "How the folders are read: auto, class, split/class, patient/class, class/patient, or a pattern such as "
        "{split}/{label}/{patient}_*.png.",
        panel="Images",
    )
    path_column: str = _column("the name or path of the image")
    label_column: str = _column("the class")
    patient_column: str = _column("the patient")
    site_column: str = _column("the hospital or the scanner")
    split_column: str = _column("the split: train, val and test, or folds")
    group_column: str = _column("the group, which no split cuts")
