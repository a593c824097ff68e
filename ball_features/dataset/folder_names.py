"""Names of folders that are no classes: of systems, results, copies, masks, splits, sites and patients."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable

from ball_features.dataset.sheet_columns import plain_name, split_value

__all__ = [
    "is_numeric",
    "is_part",
    "is_patient",
    "is_site",
    "is_split",
    "is_system",
    "is_unlabelled",
    "patient_number",
    "skipped_names",
    "split_and_rest",
    "split_of",
]

_SYSTEM = {
    "#recycle", "#snapshot", "__macosx", "system volume information", "lost+found", "__pycache__", "thumbs", "_thumbs",
    "thumbnails", "thumbnail", "ehthumbs", "recycler", "recycled", "recycle bin", "trash", "papierkorb", "corbeille",
    "papelera", "papelera de reciclaje", "cestino", "lixeira", "prullenbak", "kosz", "~snapshot",
    "network trash folder", "temporary items", "node_modules", "picasaoriginals", "venv", "_gsdata_", "_vti_cnf",
    "_vti_pvt", "ipynb_checkpoints", "windowsimagebackup",
}  # fmt: skip
# Network drives begin their own folders with @, Windows with $; a disk check puts what it finds into FOUND.000.
_SYSTEM_NAME = re.compile(r"[.@$].*|found\.\d{3}", re.IGNORECASE)
_RESULTS = {
    "result", "results", "output", "outputs", "plot", "plots", "figure", "figures", "figs", "runs", "logs", "log",
    "checkpoints", "checkpoint", "artifacts", "predictions", "prediction", "heatmap", "heatmaps", "gradcam",
    "previews", "preview", "tmp", "temp", "backup", "backups", "ergebnisse", "ergebnis", "resultats",
    "resultados", "risultati", "docs", "documentation", "scripts", "src", "notebooks", "screenshots",
}  # fmt: skip
_MASKS = {
    "mask", "masks", "masken", "maske", "annotation", "annotations", "labels", "groundtruth", "gt", "overlays",
    "overlay",    "contours", "trimaps", "binary", "binarymasks", "masques", "mascaras", "maschere",
}  # fmt: skip
# Segmented neutrophils are a class of cells: such a folder holds masks only if it repeats the folders beside it.
_SEGMENTED = {"seg", "segs", "segmented", "segmentation", "segmentations", "segmentiert"}
_MOST_FOLDERS = 200
_COPY = re.compile(
    r"(.+?)(?: ?- ?| |_)(?:copy|copia|cópia|copie|kopie|kopia|kopi|副本|コピー)(?: ?\(?\d+\)?)?|(.+?) ?\(\d+\)"
    r"|(.+?)(?:~|[ ._-](?:bak|old|backup))",
    re.IGNORECASE,
)
_COPY_OF = re.compile(r"(?:copy of|kopie von|copia de|copia di|cópia de|copie de|kopi av|kopia) (.+)", re.IGNORECASE)
_BEFORE = re.compile(r"(?P<split>[^\W\d_]+)[ _-]+(?P<rest>.+)", re.DOTALL)
_AFTER = re.compile(r"(?P<rest>.+)[ _-](?P<split>[^\W\d_]+)", re.DOTALL)
_UNLABELLED = {
    "unlabeled", "unlabelled", "nolabel", "nolabels", "notlabeled", "notlabelled", "unannotated", "notannotated",
    "unclassified", "unsorted", "ohnelabel", "unbeschriftet", "nonetiquete", "sinetiqueta", "sinetiquetar",
}  # fmt: skip
_PATIENT = re.compile(
    r"(?:p|pt|pat|patient|patientin|pid|case|fall|subject|subj|sub|participant|person|proband|individual|donor"
    r"|paciente|paziente|pacjent|hasta|cas|caso)[ _.#-]*(?:id|no|nr)?[ _.#-]*0*([0-9]+[a-z]?)",
    re.IGNORECASE,
)
# A word that names nothing but people may have letters in its number, as patient_B07, or one letter instead of it.
_PERSON = re.compile(
    r"(?:pat|patient|patientin|subject|subj|participant|person|proband|individual|donor|paciente|paziente|pacjent|hasta)"
    r"[ _.#-]+(?:[a-z]{0,5}[ _.#-]?[0-9]+[a-z]?(?:[ _.#-][0-9]+)?|[a-z])",
    re.IGNORECASE,
)
_PART = re.compile(r"((?:.*[^a-z])?(?:part|chunk|archive|volume|vol|disk|disc|zip))[ _.#-]*[0-9]+", re.IGNORECASE)
_SITE = re.compile(
    r"(?:hospital|hospitalet|site|center|centre|centro|clinic|klinik|klinikum|clinique|krankenhaus|hopital|hôpital|ospedale"
    r"|institute|institution|lab|laboratory|scanner|microscope|mikroskop)[ _.#-]*(?:[0-9]+[a-z]?|[a-z]|[IVX]+)",
    re.IGNORECASE,
)


def is_system(name: str) -> bool:
    """Whether a folder belongs to a system or a program, not to the images; hidden ones too."""
    return _SYSTEM_NAME.fullmatch(name) is not None or name.casefold() in _SYSTEM


def skipped_names(
    names: Collection[str], images: bool = False, below: Callable[[str], Collection[str]] = lambda name: ()
) -> dict[str, str]:
    """Which of the folders beside one another hold no images of their own: name -> what it is taken for.

    Masks, results and copies are only told by what lies beside them; if nothing else is there, they are kept. A folder
    of any name that holds folders named as those beside it repeats them, such as crops or labels.

    Args:
        names: folders beside one another.
        images: whether images lie beside them.
        below: gives the names of the folders in one of them.
    """
    found: dict[str, str] = {}
    beside = _Beside(names, below)
    own = {name.casefold().strip() for name in names}
    for name in names:
        plain = plain_name(name)
        words = {plain, *(part for part in re.split(r"[^a-z]+", name.casefold()) if part)}
        copy, copy_of = _COPY.fullmatch(name.strip()), _COPY_OF.fullmatch(name.strip())
        base = next((group for match in (copy, copy_of) if match for group in match.groups() if group), "")
        if base and base.casefold().strip() in own:
            found[name] = "copy"
        elif plain in _MASKS or (words & {"mask", "masks"} and len(names) > 1):
            found[name] = "masks"
        elif words & _SEGMENTED and (images or len(names) == 2 or beside.repeats(name) or beside.has_twin(name)):
            found[name] = "masks"
        elif plain in _RESULTS:
            found[name] = "results"
        elif beside.repeats(name):
            found[name] = "repeats the folders beside it"
    return found if len(found) < len(names) or images else {}


class _Beside:
    """Folders beside one another, and what lies in them; looked up when it is first asked for."""

    def __init__(self, names: Collection[str], below: Callable[[str], Collection[str]]) -> None:
        self.names = names if len(names) <= _MOST_FOLDERS else ()  # patients or images, not classes
        self.plain = {plain_name(name) for name in self.names}
        self.below = below
        self.inner: dict[str, set[str]] = {}

    def repeats(self, name: str) -> bool:
        """Whether a folder holds the names of several folders beside it."""
        return bool(self.names) and len(self._in(name) & (self.plain - {plain_name(name)})) > 1

    def has_twin(self, name: str) -> bool:
        """Whether a folder beside this one holds several folders of the same names."""
        return any(len(self._in(name) & self._in(other)) > 1 for other in self.names if other != name)

    def _in(self, name: str) -> set[str]:
        if name not in self.inner:
            self.inner[name] = {plain_name(own) for own in self.below(name)}
        return self.inner[name]


def split_of(name: str) -> str:
    """The split that a folder is named for: train, val, test or the number of a fold; "" of another folder."""
    value = split_value(name)
    if value != name or name in ("train", "val", "test"):
        return value
    parts = {split_value(part) for part in re.split(r"[^A-Za-z]+", name) if part}
    named = parts & {"train", "val", "test"}
    return named.pop() if len(named) == 1 else ""


def split_and_rest(name: str) -> tuple[str, str] | None:
    """The split and the other part of a name such as train_Benign or Benign-test; None of another name."""
    for found in (_BEFORE.fullmatch(name), _AFTER.fullmatch(name)):
        if found and split_value(found["split"]) in ("train", "val", "test"):
            return split_value(found["split"]), found["rest"]
    return None


def is_unlabelled(name: str) -> bool:
    """Whether a folder is named for images without a class."""
    return plain_name(name) in _UNLABELLED


def is_split(names: Iterable[str]) -> bool:
    """Whether all folders of a level are named for splits, and not by numbers alone, which may be classes."""
    names = list(names)
    return all(map(split_of, names)) and not is_numeric(names)


def is_patient(names: Iterable[str]) -> bool:
    """Whether all folders of a level are named as patients: P3, patient_12, case-7, subject_AB-3."""
    return all(_PATIENT.fullmatch(name.strip()) or _PERSON.fullmatch(name.strip()) for name in names)


def patient_number(name: str) -> str:
    """The number in the name of a patient, such as 7 in patient_07, without zeros before it; "" of another name."""
    found = _PATIENT.fullmatch(name.strip())
    return found[1].casefold() if found else ""


def is_part(names: Iterable[str]) -> bool:
    """Whether all folders of a level are numbered parts of one collection, as set_part_1 and set_part_2."""
    found = [_PART.fullmatch(name.strip()) for name in names]
    return all(found) and len({own[1] for own in found if own}) == 1


def is_site(names: Iterable[str]) -> bool:
    """Whether all folders of a level are named as sites: Hospital A, site_2, Scanner1."""
    return all(_SITE.fullmatch(name.strip()) for name in names)


def is_numeric(names: Iterable[str]) -> bool:
    """Whether all folders of a level have numbers for names."""
    return all(name.strip().isdecimal() for name in names)
