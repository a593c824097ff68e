"""`ball fit`: compare models on a cache under one protocol, and save some of them as bundles."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ball_features.bundles.from_run import Origin, bundle_final, bundle_fitted
from ball_features.config import FitConfig, Saving
from ball_features.config.toml import Repeat
from ball_features.dataset.grouping import read_grouping
from ball_features.errors import ConfigError, DataError
from ball_features.evaluation.final_fit import calibration_folds, fit_final
from ball_features.evaluation.protocols import Progress, evaluate
from ball_features.evaluation.saved_trial import try_saved
from ball_features.evaluation.tasks import Evaluation, obstacles
from ball_features.models.registry import select
from ball_features.outputs import require_folder
from ball_features.reporting.words import describe_cache
from ball_features.runs.checks import (
    check_name,
    check_options,
    check_protocol,
    chosen_cache,
    image_table,
    require_savable,
    split_by,
    with_numbers,
)
from ball_features.runs.contents import Comparison, measure_comparison
from ball_features.runs.new_folder import NewFolder, reserved_folder, stamped
from ball_features.runs.sites import centred_note, choose_sites, one_class_details, one_class_note, one_class_records
from ball_features.runs.store import Run, finish
from ball_features.runs.strictest import choose_best

__all__ = ["fit"]


def fit(
    cache_path: Path | str,
    config: FitConfig | Mapping[str, Any] | None = None,
    *,
    out_root: Path | str = "artifacts/runs",
    name: str | None = None,
    save: str | Saving = "",
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> Run:
    """Compare models on a cache under one protocol.

    Args:
        cache_path: a complete cache, made by `extract`.
        config: protocol, models and head, as a record or a mapping; the defaults if None.
        out_root: folder of the runs.
        name: name of the run's folder in it; protocol and time if None. A name that is taken gets a number.
        save: models to bundle for `predict`, which `Run.bundles` lists: a name, "all" (of those on embeddings), or
            "best": the first of the table, or of that of the strictest protocol that was run on the same cache, if its
            run or ladder is in `out_root`. A bundle is the first split's model, fitted on its training images only
            (64 % of all by default). Under leave-group-out it has not seen the first group. `Saving("best",
            final=True)` fits the models again on all labelled images.
        notes: notes that stand before the run's own.
        progress: called with (fits done, all fits, model just done).

    Raises:
        CacheError: the cache is missing, incomplete or not finite.
        ConfigError: a model is unknown, a setting has no effect, or a model to save cannot be fitted.
        DataError: the groups file does not fit, or no model, or none to save, could be fitted.
        SplitError: the protocol cannot be carried out on these classes.
    """
    start = time.perf_counter()
    config = FitConfig.of(config)
    saving = save if isinstance(save, Saving) else Saving(save)
    save, notes = saving.save, [notes] if isinstance(notes, str) else [*notes]
    if wrong := [note for note in notes if not isinstance(note, str)]:
        raise ConfigError(f"Got notes={wrong[:1]!r}, expected texts.")
    specs = select(config.models)
    check_name(name)
    check_protocol(config)
    cache = chosen_cache(cache_path, config)
    specs, model_notes = with_numbers(specs, cache, named=config.names_models)
    check_options(config, specs, cache, save)
    grouping = read_grouping(config, cache.path, cache.label, cache.columns)
    splits, split_notes = split_by(config, cache, grouping)
    if grouping is None and any(spec.groups and spec.kind != "head" for spec in specs):
        split_notes.append(
            "Without a groups file the robust models know no series to be trained against; `ball audit` infers them."
        )
    # Before the work: a final model needs folds, each of which can be adapted to its sites.
    folds = calibration_folds(config, image_table(cache, grouping), splits) if saving.final else []
    grouping, site_notes = choose_sites(config, grouping, [*splits, *folds], cache.label)
    site_notes += centred_note(config, grouping, splits)
    savable = require_savable(save, [spec.name for spec in specs if spec.kind != "shortcut"])
    kept = [spec.name for spec in specs if spec.kind == "head" or spec.name in savable]
    require_folder(out_root)
    evaluation = Evaluation(cache, tuple(specs), tuple(splits), config, grouping, tuple(kept))
    blocked = obstacles(evaluation)
    if save in blocked:
        raise ConfigError(f"The model {save} cannot be saved, since it cannot be fitted: {blocked[save]}")
    results = evaluate(evaluation, progress)
    one_class = one_class_records(results)
    with reserved_folder(Path(out_root), name or stamped(config.protocol, out_root)) as folder:
        comparison = Comparison(
            cache=cache,
            config=config,
            splits=splits,
            results=results,
            grouping=grouping,
            source=str(cache_path),
            repeat=Repeat(
                "fit",
                {"cache": str(cache_path)},
                config,
                {"save": save, "final": saving.final, "conformal": saving.conformal},
            ),
            folder=folder,
            subject=describe_cache(cache),
            notes=[
                *notes,
                *model_notes,
                *site_notes,
                *split_notes,
                *one_class_note(evaluation, one_class),
            ],
            start=start,
        )
        contents = measure_comparison(comparison)
        contents.details.update({"one_class": one_class_details(results)} if one_class else {})
        saved = [row.model for row in contents.models if row.model in savable] if save == "best" else savable
        if save == "best" and saved:
            choice = choose_best(Path(out_root), contents.details, saved)
            saved = [choice.model]
            contents.details["notes"].extend([choice.note] if choice.note else [])
        fitted = {
            result.spec.name: result.fitted[0] for result in results if result.fitted and result.spec.name in saved
        }
        final = []
        if saving.final:
            final = fit_final(evaluation, folds, tuple(fitted), progress)
        one_class |= try_saved(evaluation, fitted.keys() - one_class.keys(), final=saving.final, progress=progress)
        origin = Origin(cache, config, saving.conformal, evaluation.adapted_site, comparison.units, one_class)
        with NewFolder(folder.parent, folder.name) as new:
            contents.write(new.path)
            for model in final:
                bundle_final(new.path / "models", origin, model)
            for model, first in fitted.items() if not final else ():
                bundle_fitted(new.path / "models", origin, first, model)
            cache.require_unchanged()
    run = finish(contents, new.path, cache)
    if save and not run.bundles:
        reasons = [f"{item.spec.name}: {item.failure}" for item in comparison.results if item.spec.name in savable]
        raise DataError(f"The run is in {run.folder}, but it has no model to save. {' '.join(reasons)}")
    return run
