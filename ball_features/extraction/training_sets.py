"""Public collections that backbones were trained on: figures on their images are not external."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ball_features.extraction.backbones import BACKBONES

__all__ = ["TRAINING_SETS", "TrainingSet", "recognise_training_sets"]


@dataclass(frozen=True)
class TrainingSet:
    """A public collection of images.

    Attributes:
        title: authors and year, as a finding quotes them.
        citation: its publication.
        names: regular expression for a folder or a site that names it.
        files: regular expression for the names of its files; "" if they do not tell.
    """

    title: str
    citation: str
    names: str
    files: str = ""

    def count(self, paths: Sequence[str], sites: Sequence[str] = ()) -> int:
        """Number of images that appear to be of the collection; `sites` is empty where the data name none."""
        return sum(_belongs(self, path, site) for path, site in zip(paths, sites or [""] * len(paths), strict=True))


# Codes of classes with which files of the two Munich collections begin: BLA_00001.jpg, MYO_0001.tiff.
_AML_MATEK = "BAS|EBO|EOS|KSC|LYA|LYT|MMZ|MOB|MON|MYB|MYO|NGB|NGS|PMB|PMO"
_BMC = "ABE|ART|BAS|BLA|EBO|EOS|FGC|HAC|KSC|LYI|LYT|MMZ|MON|MYB|NGB|NGS|NIF|OTH|PEB|PLM|PMO"

TRAINING_SETS: dict[str, TrainingSet] = {
    "acevedo": TrainingSet(
        "Acevedo et al. 2020 (PBC, Barcelona)",
        "doi 10.17632/snkd93bnjr.1",
        names=r"\b(acevedo|pbc|barcelona|snkd93bnjr)\b",
        files=r"(^|[^A-Za-z])(BA|EO|ERB|IG|MMY|MY|PMY|LY|MO|BNE|SNE|NEUTROPHIL|PLATELET)_\d{4,7}\.",
    ),
    "aml-matek": TrainingSet(
        "Matek et al. 2019 (AML-Cytomorphology_LMU, Munich)",
        "doi 10.7937/tcia.2019.36f5o9ld",
        names=r"\b(matek|aml cytomorphology lmu)\b",
        files=rf"^({_AML_MATEK})_\d{{4}}\.tiff?$",
    ),
    "bmc": TrainingSet(
        "Matek et al. 2021 (Bone-Marrow-Cytomorphology_MLL_Helmholtz_Fraunhofer)",
        "doi 10.7937/TCIA.AXH3-T579",
        names=r"\b(bone marrow cytomorphology|bm cytomorphology)\b",
        files=rf"^({_BMC})_\d{{5}}\.jpe?g$",
    ),
    "aml-hehr": TrainingSet(
        "Hehr et al. 2023 (AML-Cytomorphology_MLL_Helmholtz)",
        "doi 10.7937/6ppe-4020",
        names=r"\b(hehr|aml cytomorphology mll helmholtz)\b",
    ),
    "apl": TrainingSet("Sidhom et al. 2021 (APL and AML)", "doi 10.1038/s41698-021-00179-y", names=r"\bsidhom\b"),
    "raabin": TrainingSet(
        "Kouzehkanan et al. 2022 (Raabin-WBC)", "doi 10.1038/s41598-021-04426-x", names=r"\braabin\b"
    ),
    "chula": TrainingSet(
        "Naruenatthanaset et al. 2021 (Chula RBC-12)", "arXiv 2012.01321", names=r"\b(chula|naruenatthanaset)\b"
    ),
    "nuclick": TrainingSet("Koohbanani et al. 2020 (NuClick)", "arXiv 2005.14511", names=r"\bnuclick\b"),
}


def recognise_training_sets(backbone: str, paths: Iterable[str], sites: Iterable[str] = ()) -> tuple[str, ...]:
    """Name the collections that a backbone was trained on and that images appear to belong to.

    The test goes by names of sites, folders and files, so it finds what kept its names and proves nothing else.

    Args:
        backbone: key of `BACKBONES`; any other name was trained on nothing that is known.
        paths: paths of the images, relative to their folder.
        sites: site of each image; empty where the data do not say.

    Returns:
        Titles with the number of images, such as "Acevedo et al. 2020 (PBC, Barcelona): 1200 of 1847 images by name".
    """
    record = BACKBONES.get(backbone)
    known = [TRAINING_SETS[key] for key in record.trained_on if key in TRAINING_SETS] if record else []
    if not known:
        return ()
    paths, sites = list(paths), list(sites)
    found = []
    for item in known:
        if of_it := item.count(paths, sites):
            found.append(f"{item.title}: {of_it} of {len(paths)} images by name")
    return tuple(found)


def _belongs(item: TrainingSet, path: str, site: str) -> bool:
    folders, _, file = path.rpartition("/")
    words = re.sub(r"[_/.-]", " ", f"{site} {folders}")
    return bool(re.search(item.names, words, re.IGNORECASE) or (item.files and re.search(item.files, file)))
