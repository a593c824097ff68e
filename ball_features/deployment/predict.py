"""New images to predictions: class, probabilities, a set with a stated coverage, and how unusual the image is."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ball_features.bundles.bundle import COVERAGE, Bundle, read_bundle
from ball_features.dataset.decode import decode_bytes
from ball_features.dataset.listing import Rejected, list_images, printable
from ball_features.deployment.answers import Prediction, Predictions
from ball_features.errors import ConfigError, DataError, ImageError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor

    from ball_features.extraction.readouts import Read

__all__ = ["Predictor", "bundle_views", "check_coverage", "find_images", "predict"]


def check_coverage(coverage: float) -> None:
    """Raise `ConfigError` where the coverage of prediction sets is no share."""
    if not 0 < coverage < 1:
        raise ConfigError(f"Got --coverage {coverage}, expected a share between 0 and 1, such as 0.95.")


def find_images(arguments: Iterable[str]) -> tuple[list[Path], list[Rejected]]:
    """Image files that folders, patterns and names stand for.

    Args:
        arguments: Folders (searched through as `ball extract` does), patterns such as `*.png`, or files.

    Returns:
        Files in the order given, each once, and names that lead nowhere or cannot be written down.
    """
    found: dict[Path, None] = {}
    rejected = []
    for text in arguments:
        path = Path(text)
        places = [path] if path.exists() else [Path(item) for item in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207, since a pattern may be absolute
        files = [file for place in places for file in _files(place)]
        if not files:
            rejected.append(Rejected(printable(text), "holds no image" if places else "is not there"))
        for file in files:
            if printable(str(file)) == str(file):
                found[file] = None
            else:
                rejected.append(Rejected(printable(str(file)), "its name is not UTF-8; rename it"))
    return list(found), rejected


def _files(place: Path) -> list[Path]:
    if place.is_dir():
        return [place / name for name in list_images(place).images]
    return [place] if place.is_file() else []


def bundle_views(pixels: Tensor, sha256: Sequence[str], facts: dict[str, Any], read: Read, mask: Any) -> list[Tensor]:
    """An embedding (images, dim) a view that a bundle tests on, its channels joined as the bundle has them.

    Args:
        pixels: float32 (images, 3, input_px, input_px) in [0, 1].
        sha256: Content hash of each, which seeds views that vary.
        facts: Of the bundle.
        read: Normalised images to embeddings of one channel, see `extraction.readouts.reader`.
        mask: bool (input_px, input_px), where the collection had overlays, or None.
    """
    import torch

    from ball_features.extraction.backbones import BACKBONES
    from ball_features.extraction.batch import embed_views
    from ball_features.extraction.segmentation import segmented

    channels = [
        pixels if name == "original" else segmented(pixels, pixels) for name in facts.get("channels_used", ["original"])
    ]
    views = embed_views(
        channels,
        sha256,
        facts["views"],
        read,
        recipe=facts["recipe"] if any(facts["views"]) else "report",
        seed=facts["view_seed"],
        mask=mask,
        normalization=facts["normalize"],
        dim=BACKBONES[facts["backbone"]].dim if facts["backbone"] in BACKBONES else 0,
    )
    return [torch.cat(own, 1) if facts.get("combine") != "mean" else torch.stack(own).mean(0) for own in views]


class Predictor:
    """A bundle with its network loaded once.

    Args:
        bundle: From `read_bundle`.
        weights: Weights of the backbone; None takes what the bundle was made with.
        device: "auto", "cpu", "cuda" or "mps".
        precision: "auto" takes the bundle's where the device has it.
        compiled: On CUDA, use kernels of our own: seconds to compile, which hundreds of images pay back.

    Raises:
        WeightsError: The weights are missing, or not those of the bundle.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        weights: str | None = None,
        device: str = "auto",
        precision: str = "auto",
        compiled: bool = False,
    ) -> None:
        from ball_features.extraction.backbones import get_backbone
        from ball_features.extraction.engine.devices import best_precision, resolve_device
        from ball_features.extraction.engine.modules import build_engine
        from ball_features.extraction.weights import load_backbone, weights_digest

        self.bundle, facts = bundle, bundle.facts
        wanted = weights or facts["weights"]
        name = f"file:{wanted}" if facts["backbone"].startswith("file:") else facts["backbone"]
        self.backbone = get_backbone(name, facts.get("input_px", 0))
        seed = int(facts.get("seed", 0))
        if weights_digest(self.backbone, wanted, seed) != facts["weights_sha256"]:
            raise WeightsError(
                f"{wanted} are not the weights that this bundle was made with "
                f"(SHA-256 {facts['weights_sha256'][:12]}...). Give that file to --weights."
            )
        self.device = resolve_device(device)
        chosen = precision
        if precision == "auto":
            # Where the bundle's own would be emulated, float32 is faster and nearer to what it stands for.
            chosen = facts["precision"] if facts["precision"] == best_precision(self.device) else "fp32"
        self.module = load_backbone(self.backbone, wanted, seed)
        self.engine = build_engine(self.backbone, self.module, self.device, chosen, compiled)
        self.mask = self._mask()

    def _mask(self) -> Tensor | None:
        import torch

        from ball_features.extraction.batch import unpack_mask

        packed = self.bundle.facts.get("overlay_mask")
        mask = None if packed is None else unpack_mask(packed)
        return None if mask is None else torch.from_numpy(mask).to(self.device)

    @property
    def caveat(self) -> str:
        """What sets these embeddings apart from those that the model was fitted on, or ""."""
        facts = self.bundle.facts
        if facts.get("segmentation") != "twins" or "segmented" not in facts.get("channels_used", []):
            return ""
        return (
            "The model was fitted on segmented pictures from files; those of new images are computed by the published "
            "thresholds, which differ from them. Extract with --twins none to fit on computed ones."
        )

    def about(self, coverage: float) -> dict[str, Any]:
        """What predictions are by, and what their sets and flags mean, ready for JSON."""
        bundle = self.bundle
        names = ("model", "backbone", "weights_sha256", "cache_fingerprint", "ball_version")
        return {key: bundle.facts[key] for key in names if key in bundle.facts} | {
            "coverage": coverage,
            "set_threshold": bundle.threshold(coverage),
            "unusual_from": bundle.unusual_from,
            "unusual_share": bundle.unusual_share,
        }

    def warm_up(self) -> None:
        """Pay for compilation and first allocations now."""
        import torch

        side = self.backbone.input_px
        self.embed(torch.zeros(1, 3, side, side, dtype=torch.uint8), [""])

    def embed(self, images: Tensor, sha256: Sequence[str]) -> np.ndarray:
        """Embeddings of the views that the bundle tests on, float32 (images, views, dim).

        Args:
            images: uint8 (images, 3, input_px, input_px).
            sha256: Content hash of each, which seeds the views.
        """
        import torch

        from ball_features.extraction.readouts import reader

        pixels = images.to(self.device).float().div_(255)
        views = bundle_views(pixels, sha256, self.bundle.facts, reader(self.engine), self.mask)
        return torch.stack(views, 1).cpu().numpy()

    def activation(self, image: Tensor, sha256: str, code: int) -> np.ndarray | None:
        """Where a class's evidence lies: a class activation map (Zhou et al. 2016, eq. 2).

        On the first view tested that leaves pixels where they are. The share that each place of the feature map has in
        the class's logit, less the mean of all classes' logits; for a head of several layers by its gradient at this
        image (Selvaraju et al. 2017, eq. 1), with its sign kept.

        Args:
            image: uint8 (3, input_px, input_px).
            sha256: Its content hash.
            code: Number of the class in the bundle's `classes`.

        Returns:
            float32 (height, width), several values in each direction, or None where the network, the views or the
            model have no such map.
        """
        import torch
        import torch.nn.functional as F

        from ball_features.extraction.readouts import READOUTS, place_weights, read_maps
        from ball_features.extraction.views import keeps_places
        from ball_features.models.linear import view_modules

        facts, estimator = self.bundle.facts, self.bundle.estimator
        known = estimator.classes_.tolist()
        kept = [
            place for place, index in enumerate(facts["views"]) if not index or keeps_places(facts["recipe"], index)
        ]
        maps_of: Any = getattr(self.engine, "maps", None)
        if maps_of is None or code not in known or not kept:
            return None
        try:
            head = view_modules(estimator, len(facts["views"]))[kept[0]]
        except DataError:
            return None
        weighted: list[Tensor] = []  # of each channel, float32 (height, width, dim): what the embedding is the sum of

        def read(view: Tensor, readouts: Sequence[str], nuclei: Tensor | None) -> list[Tensor]:
            readout = READOUTS[readouts[0]]
            maps = maps_of(view, (readout.block,))
            activations = maps[readout.block][0].float().cpu()
            height, width, _ = activations.shape
            weight = place_weights(nuclei if readout.nuclei else None, 1, height, width).cpu()
            weighted.append(activations * weight.view(height, width, 1))
            return read_maps(maps, readouts, nuclei)

        pixels = image[None].to(self.device).float().div_(255)
        own = facts | {"views": [facts["views"][kept[0]]]}
        x = bundle_views(pixels, [sha256], own, read, self.mask)[0].cpu().clone().requires_grad_()
        logits = head(x)[0]
        (slope,) = torch.autograd.grad(logits[known.index(code)] - logits.mean(), x)
        if facts.get("combine") == "mean":
            slope = slope.repeat(1, len(weighted)) / len(weighted)
        dim = slope.shape[1] // len(weighted)  # a shorter map was filled up with zeros
        together = torch.cat([F.pad(part, (0, dim - part.shape[2])) for part in weighted], 2)
        return (together @ slope[0]).numpy()

    def __call__(
        self,
        files: Sequence[Path],
        *,
        coverage: float = 0.95,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[list[Prediction], list[Rejected]]:
        """Predict.

        Args:
            files: Images.
            coverage: Of the prediction sets.
            progress: Called with (images done, images in all).

        Returns:
            A prediction an image that could be decoded, in order, and the others with their reasons.
        """
        from ball_features.extraction.batch import batch_size
        from ball_features.extraction.engine.modules import runs_on_all_cores
        from ball_features.extraction.stream import feeders, stream
        from ball_features.threads import core_count

        check_coverage(coverage)
        predictions: list[Prediction] = []
        rejected: list[Rejected] = []
        size = batch_size(self.device.type, self.engine.precision, self.backbone.input_px)
        on_cpu = self.device.type == "cpu"
        workers = 1 if on_cpu and runs_on_all_cores(self.engine) else min(16, core_count())
        done = 0

        def load(row: int) -> tuple[Tensor, str] | str:
            return self._load(files[row])

        def compute(
            rows: np.ndarray, loaded: list[tuple[Tensor, str] | str]
        ) -> tuple[list[str], np.ndarray | None, list[Rejected]]:
            import torch

            named = [(str(files[row]), item) for row, item in zip(rows, loaded, strict=True)]
            bad = [Rejected(name, item) for name, item in named if isinstance(item, str)]
            good = [(name, *item) for name, item in named if not isinstance(item, str)]
            if not good:
                return [], None, bad
            paths, images, digests = zip(*good, strict=True)
            return list(paths), self.embed(torch.stack(images), digests), bad

        threads: dict[str, Any] = {"on_cpu": on_cpu, "workers": workers, "feeders": feeders(self.device.type)}
        for paths, X, bad in stream(np.arange(len(files)), size, load, compute, **threads):
            rejected += bad
            if X is not None:
                predictions += self.describe(paths, X, coverage)
            done += len(paths) + len(bad)
            if progress:
                progress(done, len(files))
        return predictions, rejected

    def _load(self, file: Path) -> tuple[Tensor, str] | str:
        from ball_features.extraction.batch import resize

        try:
            data = file.read_bytes()
            return resize(decode_bytes(data), self.backbone.input_px), hashlib.sha256(data).hexdigest()
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        except ImageError as error:
            return str(error)

    def describe(self, paths: Sequence[str], X: np.ndarray, coverage: float) -> list[Prediction]:
        """Predictions from embeddings (images, views, dim)."""
        bundle = self.bundle
        probability = bundle.probability(X)
        inside = bundle.sets(probability, coverage)
        distance, rows = bundle.distance(X)
        limit = bundle.unusual_from
        result = []
        for place, path in enumerate(paths):
            order = np.argsort(-probability[place])
            result.append(
                Prediction(
                    path=path,
                    predicted=bundle.classes[order[0]],
                    probability=dict(zip(bundle.classes, probability[place].tolist(), strict=True)),
                    set=tuple(bundle.classes[code] for code in order if inside[place, code]),
                    distance=float(distance[place]),
                    unusual=bool(distance[place] > limit),
                    nearest=tuple(bundle.train_path[row] for row in rows[place]),
                )
            )
        return result


def predict(
    bundle: Path | str,
    images: Path | str | Sequence[Path | str],
    *,
    coverage: float = COVERAGE,
    weights: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    trust: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Predict the class of new images: research use only, not a diagnosis.

    Args:
        bundle: RUN/models/MODEL, made by `fit(..., save=MODEL)`.
        images: Folders, patterns or files.
        coverage: Of the prediction sets.
        weights: Of the backbone, where the bundle's own path has moved.
        device: "auto", "cpu", "cuda" or "mps".
        precision: "auto" (the bundle's), "fp32", "bf16" or "fp16".
        trust: Load a model in joblib's format too, which can execute anything.
        progress: Called with (images done, images in all).

    Raises:
        ConfigError: The coverage is no share.
        DataError: No bundle, or no image that can be predicted.
        WeightsError: The weights are missing, or not those of the bundle.
    """
    from ball_features.extraction.engine.choose import COMPILE_FROM

    check_coverage(coverage)
    names = [str(name) for name in ([images] if isinstance(images, Path | str) else images)]
    files, missing = find_images(names)
    if not files:
        raise DataError(
            f"Found no image in {', '.join(map(printable, names[:3]))}, expected folders, patterns or files."
        )
    loaded = read_bundle(bundle, trust=trust)
    predictor = Predictor(
        loaded, weights=weights, device=device, precision=precision, compiled=len(files) >= COMPILE_FROM
    )
    predictions, rejected = predictor(files, coverage=coverage, progress=progress)
    rejected = [*missing, *rejected]
    if not predictions:
        listed = "".join(f"\n  {item.path}: {item.reason}" for item in rejected[:5])
        raise DataError(f"No file of {len(rejected)} can be predicted, expected images. Rejected files:{listed}")
    return Predictions(
        predictions=predictions,
        rejected=rejected,
        classes=loaded.classes,
        about={"bundle": str(bundle)} | predictor.about(coverage),
        notes=[*([predictor.caveat] if predictor.caveat else []), *loaded.notes(coverage)],
    )
