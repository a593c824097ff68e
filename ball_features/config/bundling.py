"""Settings of saving: which models of a run become bundles, on which images they are fitted, how they answer."""

from __future__ import annotations

from dataclasses import dataclass

from ball_features.config.fields import COMMON, Config, option, require

__all__ = ["CONFORMAL", "Saving"]

CONFORMAL = ("marginal", "mondrian")


@dataclass(frozen=True)
class Saving(Config):
    """What is saved of a run."""

    save: str = option(
        "",
        "Save a model for `ball predict` (a bundle): its name, all, or best (the first of the table; of the strictest "
        "protocol, where a run or ladder on this cache lies in the same folder). Unless it is final, a bundle is the "
        "first split's model, fitted on its training images only (64 % of all by default); under leave-group-out it "
        "has not seen the first group.",
        panel=COMMON,
    )
    final: bool = option(
        False,
        "Fit the saved models again on all labelled images, once the evaluation is done. Calibration, sets and the "
        "flag for unusual images come from out-of-fold predictions; the model itself is never tested.",
        panel="Models",
    )
    conformal: str = option(
        "marginal",
        "Coverage of the sets of a saved model: marginal (over all images) or mondrian (within each class: rare "
        "classes are covered as often as common ones, by larger sets).",
        panel="Models",
        choices=CONFORMAL,
    )

    def __post_init__(self) -> None:
        """Check that the other settings have a model to go by."""
        super().__post_init__()
        require(bool(self.save) or not self.final, "final", self.final, "a model to save too, such as save='best'")
        require(
            bool(self.save) or self.conformal == "marginal",
            "conformal",
            self.conformal,
            "a model to save too, such as save='best'",
        )
