"""How a picture becomes an embedding: one record, which extraction, caches, bundles, predictions and graphs share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ball_features.config import ExtractConfig
from ball_features.config.plain_values import digest
from ball_features.errors import CacheError
from ball_features.extraction.backbones import Backbone, get_backbone, recorded_backbone
from ball_features.extraction.normalization import choose_normalization, normalize
from ball_features.extraction.overlay_mask import mask_tensor
from ball_features.extraction.readouts import Read
from ball_features.extraction.recipe import View, ViewPlan
from ball_features.extraction.rendering import SourceImages, render_view
from ball_features.extraction.segmentation import apply_segmented

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Preprocessing", "pad"]

# Attributes that change no number, or that another attribute already tells.
_NOT_IN_FINGERPRINT = ("weights", "input_px")


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes an embedding.

    Attributes:
        backbone: network, with the side of its input; its `dim` is the length of an embedding, to which shorter ones
            are padded with zeros, and 0 if it is unknown and nothing is padded.
        weights: "imagenet", "random", or the absolute path of a file.
        weights_sha256: digest of the weights; "" until they are found.
        normalization: normalisation of pixel values, as `extraction.normalization.mean_std` takes it.
        plan: views of each image.
        precision: number format of the forward pass: "fp32", "bf16", "fp16", or "auto" until one is chosen.
        dtype: number format of stored embeddings: "float16" or "float32".
        seed: seed of random views and of random weights.
        channels: pictures of each image that are embedded: "original", "segmented".
        segmentation: source of segmented pictures: "hsv" (the published thresholds), "twins" (files), or "".
        combine: what becomes of the channels of a view: "concat", "mean", or "" for an embedding of each.
        overlay_mask: pixels that overlays of the collection cover, as `overlay_mask.pack_mask` writes them, or "".
    """

    backbone: Backbone
    weights: str
    weights_sha256: str
    normalization: str
    plan: ViewPlan
    precision: str = "auto"
    dtype: str = "float16"
    seed: int = 0
    channels: tuple[str, ...] = ("original",)
    segmentation: str = ""
    combine: str = ""
    overlay_mask: str = ""

    @classmethod
    def from_config(cls, config: ExtractConfig) -> Preprocessing:
        """Take what the configuration asks for; no file is read but that of a network in a file.

        Args:
            config: settings of the extraction.

        Raises:
            ConfigError: The recipe or the normalisation is wrong, or the network is unknown or lacks what the recipe
                reads.
            WeightsError: The network lies in a file that cannot be used.
            MissingExtraError: The network is one of timm, which is not installed.
        """
        backbone = get_backbone(config.backbone, config.input_px)
        plan = ViewPlan.parse(config.recipe, config.views, backbone)
        file = backbone.path or (None if config.weights in ("imagenet", "random") else Path(config.weights))
        return cls(
            backbone=backbone,
            weights=str(file.resolve()) if file else config.weights,
            weights_sha256="",
            normalization=choose_normalization(config.normalize, backbone),
            plan=plan,
            precision=config.precision,
            dtype=config.dtype,
            seed=config.seed if len(plan) > 1 or config.weights == "random" else 0,
            channels=config.channels,
            segmentation="hsv" if len(config.channels) > 1 else "",
        )

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any], dim: int = 0) -> Preprocessing:
        """Read the attributes of a cache.

        Args:
            attributes: attributes of a cache, as stored or with the channels that `cache.choose_channels` chose.
            dim: length of a stored embedding of one channel; 0 for that of the registered backbone.

        Raises:
            CacheError: An attribute is missing or of another type.
            ConfigError: The recipe is unknown.
        """
        try:
            several = attributes["recipe"] != "plain"
            plan = ViewPlan.parse(attributes["recipe"], int(attributes["views"]) if several else None)
            return _read(attributes, plan, dim)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise CacheError(
                f"The cache does not say how its images were embedded (missing or damaged: {error}). Extract anew."
            ) from error

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Preprocessing:
        """Read `bundle.json`.

        Raises:
            KeyError: A key is missing.
            ConfigError: The recipe is unknown.
        """
        indices = [int(index) for index in facts["views"]]
        several = facts["recipe"] != "plain"
        plan = ViewPlan.parse(facts["recipe"], max(2, *(index + 1 for index in indices)) if several else None)
        return _read(facts, plan.select(indices), int(facts.get("dim", 0)))

    def to_attributes(self) -> dict[str, object]:
        """The attributes of a cache, ready for `create_cache`."""
        several = len(self.channels) > 1
        return {
            "backbone": self.backbone.name,
            "weights": self.weights,
            "weights_sha256": self.weights_sha256,
            "pooling": self.backbone.pooling,
            "input_px": self.backbone.input_px,
            "resize": self.resize,
            "normalize": self.normalization,
            "views": len(self.plan),
            "recipe": self.plan.recipe,
            "recipe_version": self.plan.version,
            "seed": self.seed,
            "dtype": self.dtype,
            "precision": self.precision,
            **({"channels": list(self.channels), "segmentation": self.segmentation} if several else {}),
            **({"overlay_mask": self.overlay_mask} if self.overlay_mask else {}),
        }

    def to_config(self) -> ExtractConfig:
        """The settings that make the embeddings again; `twins` "auto" finds the files if they are still there."""
        in_file = self.backbone.name.startswith("file:")  # a network and its weights in one file
        return ExtractConfig(
            backbone=f"file:{self.weights}" if in_file else self.backbone.name,
            weights=ExtractConfig.weights if in_file else self.weights,
            recipe=self.plan.recipe,
            views=len(self.plan),
            normalize=self.normalization,
            input_px=self.backbone.input_px,
            precision=self.precision,
            dtype=self.dtype,
            channels=self.channels,
            twins="none" if self.segmentation == "hsv" else "auto",
            seed=self.seed,
        )

    def to_facts(self) -> dict[str, object]:
        """The keys of `bundle.json`."""
        own = self.to_attributes()
        facts = {key: own[key] for key in own if key not in ("recipe_version", "dtype", "channels", "segmentation")}
        facts |= {"views": self.plan.indices, "view_seed": self.seed, "dim": self.backbone.dim}
        if self.combine:
            facts |= {"channels_used": list(self.channels), "combine": self.combine, "segmentation": self.segmentation}
        return facts

    @property
    def resize(self) -> str:
        """How images are resized, in words."""
        return f"{self.backbone.input_px} px, bilinear, antialiased"

    @property
    def passes(self) -> int:
        """Embeddings of each image: views times channels."""
        return len(self.plan) * len(self.channels)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that changes a stored number."""
        values = {key: value for key, value in self.to_attributes().items() if key not in _NOT_IN_FINGERPRINT}
        return digest(values)

    def differences(self, attributes: Mapping[str, Any]) -> list[str]:
        """Settings in which a cache differs from this record, a text each.

        The mask of overlays is not compared: a cache keeps the one that it was begun with, as it does the precision
        where "auto" is asked for.
        """
        wanted = dict.fromkeys(("channels", "segmentation")) | self.to_attributes()
        left_out = {*_NOT_IN_FINGERPRINT, "overlay_mask", *(["precision"] if self.precision == "auto" else [])}
        return [
            f"{name} (cache: {attributes.get(name)}, asked for: {value})"
            for name, value in wanted.items()
            if name not in left_out and attributes.get(name) != value
        ]

    def select(self, indices: Sequence[int]) -> Preprocessing:
        """The record with only these of its views, by their position."""
        return replace(self, plan=self.plan.select(indices))

    def mask(self, device: Any) -> Tensor | None:
        """Pixels that overlays cover, bool (input_px, input_px) on the device, or None if there are none."""
        return mask_tensor(self.overlay_mask, str(device))

    def embed(self, images: Tensor, sha256: Sequence[str], read: Read) -> Tensor:
        """Embed a batch of decoded images; views with equal pixels share a forward pass.

        Args:
            images: RGB pixels, float32 (batch, 3, input_px, input_px) in [0, 1]; (batch, 6, ...) with the segmented
                pictures behind them, which are computed otherwise.
            sha256: content hash of each image, which seeds random views.
            read: function of `extraction.readouts.reader`.

        Returns:
            Embeddings, float32 (batch, views, dim). Channels are joined as `combine` says; if it is "", each channel of
            a view is a view of its own, one behind the other.
        """
        import torch

        rows: list[list[Tensor]] = [[] for _ in self.plan.views]
        for channel in self.channels:
            source = SourceImages(_channel(images, channel), self.mask(images.device))
            for positions in self._shared_passes():
                for position, vector in zip(positions, self._embed_pass(source, positions, sha256, read), strict=True):
                    rows[position].append(vector)
        if self.combine == "mean":
            return torch.stack([torch.stack(row).mean(0) for row in rows], 1)
        if self.combine == "concat":
            return torch.stack([torch.cat(row, 1) for row in rows], 1)
        return torch.stack([vector for row in rows for vector in row], 1)

    def _shared_passes(self) -> list[list[int]]:
        """Positions of the views, grouped by equal pixels."""
        passes: dict[object, list[int]] = {}
        for position, view in enumerate(self.plan.views):
            passes.setdefault(view.pixels, []).append(position)
        return list(passes.values())

    def _embed_pass(
        self, source: SourceImages, positions: Sequence[int], sha256: Sequence[str], read: Read
    ) -> list[Tensor]:
        """Embeddings of views with equal pixels, float32 (batch, dim) each."""
        views: list[View] = [self.plan.views[position] for position in positions]
        readouts = [view.readout for view in views]
        with_nuclei = any(readout.nuclei for readout in readouts)
        pixels, nuclei = render_view(views[0], source, sha256, self.seed, with_nuclei=with_nuclei)
        return [
            pad(vector, self.backbone.dim) for vector in read(normalize(pixels, self.normalization), readouts, nuclei)
        ]


def pad(vectors: Tensor, dim: int) -> Tensor:
    """Embeddings (batch, length) padded with zeros to (batch, dim); unchanged if they are not shorter."""
    import torch.nn.functional as F

    missing = dim - vectors.shape[1]
    return F.pad(vectors, (0, missing)) if missing > 0 else vectors


def _channel(images: Tensor, name: str) -> Tensor:
    pixels = images if images.shape[1] == 3 else images[:, :3]
    if name == "original":
        return pixels
    return apply_segmented(pixels, pixels) if pixels is images else images[:, 3:]


def _read(values: Mapping[str, Any], plan: ViewPlan, dim: int) -> Preprocessing:
    """A record of the keys that caches and bundles share; those of 0.1.0 may lack some."""
    input_px = int(values.get("input_px") or str(values["resize"]).split()[0])
    return Preprocessing(
        backbone=recorded_backbone(str(values["backbone"]), input_px, dim, values.get("pooling")),
        weights=str(values.get("weights", "imagenet")),
        weights_sha256=str(values["weights_sha256"]),
        normalization=str(values["normalize"]),
        plan=plan,
        precision=str(values["precision"]),
        dtype=str(values.get("dtype", "float16")),
        seed=int(values.get("seed", 0)),
        channels=tuple(values.get("channels_used") or values.get("channels") or ("original",)),
        segmentation=str(values.get("segmentation", "")),
        combine=str(values.get("combine", "")),
        overlay_mask=str(values.get("overlay_mask", "")),
    )
