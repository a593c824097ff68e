"""The flag for unusual images of a site-adapted model: each site left out in turn, and adapted to.

    python benchmarks/unusual.py embed SITE=FOLDER ... KIND=FOLDER ... --out SETS --weights FILE --recipe plain
    python benchmarks/unusual_sites.py SETS --sites SITE SITE SITE [--model logistic] [--images 60]

A model of the plain view is fitted on all sites but one. Half of that one's images adapt it, without labels; the others
are tested, and so are all sets that are no site, as single images of the new site (*foreign*), and as a batch that
adapts the model (*batch*). KIND@SITE, altered images of a site, and turned@SITE, which are not foreign, are tested
where that site is the new one. *Before* takes centred embeddings at unit length, with thresholds of known sites.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from unusual import Images, load_sets, spread

from ball_features.bundles.bundle import UNUSUAL_SHARE
from ball_features.bundles.known_sites import Sites
from ball_features.bundles.left_out_sites import LabelledEmbeddings, score_left_out, score_within
from ball_features.bundles.score_scale import fit_scale
from ball_features.config import FitConfig
from ball_features.models.adaptation import SiteAdapter, SiteShift
from ball_features.models.registry import MODELS

Flag = Callable[[np.ndarray, SiteShift], np.ndarray]


class Adapted:
    """A model of some sites.

    Args:
        X: embeddings, float32 (images, 1, dim).
        codes: class numbers, int (images,).
        site: site of each image, str (images,).
        model: key of `MODELS`.
    """

    def __init__(self, X: np.ndarray, codes: np.ndarray, site: np.ndarray, model: str) -> None:
        self.adapter = SiteAdapter("auto").fit(X, codes, site)
        self.sites, self.classes = Sites(self.adapter), int(codes.max()) + 1
        Z = self.adapter.center(X, site)
        build = MODELS[model].build
        self.estimator = build(0, FitConfig().head).fit(Z[:, 0], codes)
        rows = np.arange(len(X))
        fold = np.random.default_rng(1).permutation(len(X)) % 5
        called = np.empty(len(X), dtype=int)
        for k in range(5):
            own = build(0, FitConfig().head).fit(Z[fold != k, 0], codes[fold != k])
            called[fold == k] = own.predict(Z[fold == k, 0])
        length = np.linalg.norm(X, axis=2).mean(0)
        now, before = (LabelledEmbeddings(Z, codes, site=site, length=part) for part in (length, None))
        self.measures, self.before = now.measures(), before.measures()
        groups = self.measures.groups
        self.strict = fit_scale(score_within(now, now, (rows, rows), 0), called, groups)
        elsewhere = score_left_out(now, now)
        assert elsewhere is not None
        self.wide = fit_scale(elsewhere, called, groups)
        self.strict_before = fit_scale(score_within(before, before, (rows, rows), 0), called, groups)

    def adapt(self, X: np.ndarray) -> SiteShift:
        """Adapt to images without labels."""
        return self.adapter.adapt(X, lambda Z: self.estimator.predict_proba(Z[:, 0]), guarded=True)

    def unknown(self) -> SiteShift:
        """The site of which nothing is known."""
        return SiteShift(self.adapter.average, 0)

    def flags(self, X: np.ndarray, shift: SiteShift) -> np.ndarray:
        """As `Bundle.unusual`."""
        scale = self.wide if self.sites.is_near(shift.offset) else self.strict
        scores = self.measures.score(self.sites.to_measure(X, shift.offset))
        return scale.flags(scores, self._called(X, shift), self.classes, UNUSUAL_SHARE)

    def flags_before(self, X: np.ndarray, shift: SiteShift) -> np.ndarray:
        """As `Bundle.unusual` of version 0.1.0 and of later models that were fitted before this was changed."""
        scores = self.before.score(X - shift.offset)
        return self.strict_before.flags(scores, self._called(X, shift), self.classes, UNUSUAL_SHARE)

    def _called(self, X: np.ndarray, shift: SiteShift) -> np.ndarray:
        return self.estimator.predict((X - shift.offset)[:, 0]).astype(int)


def one(folder: Path, sites: list[str], new: str, model: str, images: int) -> None:
    """Print a site that is left out."""
    loaded = {name: load_sets(folder, [name], [0]) for name in sites}
    labels = {name: np.load(folder / f"{name}.npz")["label"] for name in sites}
    names = np.unique(np.concatenate(list(labels.values())))
    X, codes, site = (
        np.concatenate(part)
        for part in zip(
            *(
                (loaded[name][0].X, np.searchsorted(names, labels[name]), np.full(len(labels[name]), name))
                for name in sites
                if name != new
            ),
            strict=True,
        )
    )
    fitted, own = Adapted(X, codes, site, model), loaded[new][0].X
    half = np.random.default_rng(0).random(len(own)) < 0.5
    shift = fitted.adapt(own[half])
    kinds: dict[str, Images] = {}
    for file in sorted(folder.glob("*.npz")):
        kind, _, of = file.stem.partition("@")
        if file.stem not in sites and of in ("", new):
            kinds[kind] = spread(load_sets(folder, [file.stem], [0])[0], images)
    ways: dict[str, Flag] = {"before": fitted.flags_before, "now": fitted.flags}
    far = fitted.adapter.farness(shift.offset)
    print(f"{new}, {shift.reason or 'adapted'}, {far:.1f} times as far as the farthest training site")
    for way, flag in ways.items():
        share = {kind: 100 * flag(part.X, shift).mean() for kind, part in kinds.items()}
        foreign = {kind: value for kind, value in share.items() if kind != "turned"}
        low = ", ".join(f"{kind} {value:.0f}" for kind, value in sorted(foreign.items(), key=lambda i: i[1])[:8])
        print(
            f"| {new} | {way} | {100 * flag(own[~half], shift).mean():.1f} | {share.get('turned', np.nan):.0f} "
            f"| {np.mean(list(foreign.values())):.1f} | {low} | {100 * flag(own, fitted.unknown()).mean():.0f} |"
        )
    for kind, part in kinds.items():
        if len(part) >= 20 and kind != "turned":
            batch = fitted.adapt(part.X)
            cells = " | ".join(f"{100 * flag(part.X, batch).mean():.0f}" for flag in ways.values())
            far = fitted.adapter.farness(batch.offset) if batch.adapted else float("nan")
            print(f"| {new} | batch of {kind} | {cells} | {far:.1f} |")


def main() -> None:
    """Leave each site out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sites", nargs="+", required=True)
    parser.add_argument("--model", default="logistic")
    parser.add_argument("--images", type=int, default=60)
    given = parser.parse_args()
    for new in given.sites:
        one(given.folder, given.sites, new, given.model, given.images)


if __name__ == "__main__":
    main()
