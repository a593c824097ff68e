"""A graph of ONNX with its files, run by ONNX Runtime within bounds: as it is, in pieces, and not for ever."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ball_features.errors import WeightsError, is_of_the_machine, require_extra
from ball_features.extraction.onnx_folding import FOLDING, folds_much
from ball_features.threads import is_out_of_memory

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["Graph", "side_digest", "start_session"]

_MOST_AT_ONCE = 1024  # images that a graph may demand: one is padded to so many
# Ten times what the largest published encoders take on a slow core.
SECONDS_OF_AN_IMAGE = 120.0
_STOPPING_S = 20.0
_FLOAT = "tensor(float)"
_GIVEN = (_FLOAT, "tensor(double)", "tensor(float16)")

_SILENT = 4  # severity of what ONNX Runtime prints: fatal faults alone; it prints names of a graph as they are


def start_session(path: Path, providers: Sequence[str], *, folded: bool = True) -> onnxruntime.InferenceSession:
    """Load a graph in a session that prints nothing; what fails is raised by ONNX Runtime.

    Args:
        path: path of the graph.
        providers: execution providers in order of preference.
        folded: whether what depends on constants alone is computed now; nothing stops that.
    """
    import onnxruntime

    onnxruntime.set_default_logger_severity(_SILENT)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _SILENT
    kept = () if folded else FOLDING
    return onnxruntime.InferenceSession(path, settings, providers=list(providers), disabled_optimizers=kept)


class Graph:
    """A graph of one input, which gives a vector or a feature map for each image.

    Args:
        path: path of the graph.

    Raises:
        WeightsError: It is no such graph.
        MissingExtraError: onnx or onnxruntime is not installed.
    """

    def __init__(self, path: Path) -> None:
        require_extra("onnxruntime", "onnx", f"file:{path.name}")
        import onnxruntime

        model, _ = _side_files(path)  # before ONNX Runtime opens what may be a pipe, or lie elsewhere
        self.path = path
        providers = onnxruntime.get_available_providers()
        try:
            self._session = start_session(path, providers, folded=not folds_much(model))
        except Exception as error:
            if is_of_the_machine(error):
                raise
            raise WeightsError(f"{path} is not an ONNX network ({type(error).__name__}). Export it again.") from error
        inputs = self._session.get_inputs()
        shape = (inputs[0].shape or []) if len(inputs) == 1 else []
        if len(inputs) != 1 or inputs[0].type != _FLOAT or len(shape) != 4:
            listed = ", ".join(f"{one.type} of {len(one.shape or [])} dimensions" for one in inputs) or "nothing"
            raise WeightsError(
                f"{path} takes {listed}, expected images alone: {_FLOAT} of 4 dimensions (images, 3, side, side). "
                "Export it so."
            )
        listed = next((one.type for one in self._session.get_outputs()), "nothing")
        if listed not in _GIVEN:
            raise WeightsError(f"{path} gives {listed}, expected {_FLOAT} first. Export it so.")
        self._name = inputs[0].name
        self._at_once = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else 0  # 0: any number
        if self._at_once > _MOST_AT_ONCE:
            raise WeightsError(
                f"{path} takes {self._at_once} images at once and no other number, expected up to {_MOST_AT_ONCE}. "
                "Export it for any number of images (dynamic_axes or dynamic_shapes of torch.onnx.export)."
            )

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """What the graph gives first for images, float32 (images, 3, side, side), in pieces if it demands a number.

        Raises:
            WeightsError: It refuses them, gives another number of rows, or does not come to an end.
        """
        size, out = self._at_once or len(images), []
        for start in range(0, len(images), size):
            piece = images[start : start + size]
            full = np.concatenate([piece, np.zeros((size - len(piece), *piece.shape[1:]), piece.dtype)])
            found = self._bounded(full)
            if found.ndim not in (2, 4) or len(found) != size or not found.size:
                raise WeightsError(
                    f"{self.path} returns {found.shape} for {size} {'image' if size == 1 else 'images'}, expected "
                    f"({size}, dim), or ({size}, dim, height, width), which is averaged. Export it with its pooling "
                    "and without its classifier, for any number of images."
                )
            out.append(found[: len(piece)].astype(np.float32, copy=False))
        return np.concatenate(out)

    def _bounded(self, images: np.ndarray) -> np.ndarray:
        """Run the graph in a thread, so that one that does not end can be told to, and Ctrl-C is heard."""
        import onnxruntime

        options, ended, over = onnxruntime.RunOptions(), list[Any](), threading.Event()

        def run() -> None:
            try:
                ended.append(self._session.run(None, {self._name: images}, options)[0])
            except Exception as error:
                ended.append(error)
            over.set()

        threading.Thread(target=run, daemon=True).start()
        most_s, in_time = SECONDS_OF_AN_IMAGE * len(images), False
        try:
            in_time = over.wait(most_s)
        finally:
            if not in_time:
                options.terminate = True
                over.wait(_STOPPING_S)  # a process that ends while it computes is aborted
        if not in_time:
            raise WeightsError(
                f"{self.path} did not end within {most_s:g} s on {images.shape}, and was stopped. Export it again; a "
                "network that takes so long needs another machine."
            )
        found = ended[0]
        if isinstance(found, Exception):
            if is_out_of_memory(found):
                raise found
            first = (str(found).strip().splitlines() or [type(found).__name__])[0]
            raise WeightsError(
                f"{self.path} does not take images of shape {images.shape}: {first}. Set input_px to the size that it "
                "takes."
            ) from found
        return found


def side_digest(path: Path) -> str:
    """Hash of the names and contents of the files beside a graph that hold its weights; "" where it has none.

    `torch.onnx.export` writes such files unless it is told not to.

    Raises:
        WeightsError: The file is no graph, or such a file is missing, no regular file, or not in the graph's folder.
        MissingExtraError: onnx is not installed.
    """
    digest = hashlib.sha256()
    _, files = _side_files(path)
    for location, file in files.items():
        with file.open("rb") as opened:
            digest.update(location.encode() + b"\0" + hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest() if files else ""


def _side_files(path: Path) -> tuple[Any, dict[str, Path]]:
    """A graph, and the files beside it that hold its weights, by their names in it.

    Raises:
        WeightsError: The file is no graph, or such a file is missing, no regular file, or not in the graph's folder.
        MissingExtraError: onnx is not installed.
    """
    require_extra("onnx", "onnx", f"file:{path.name}")
    import onnx

    try:
        model = onnx.load_model(path, load_external_data=False)
        locations = sorted(set(_locations(model)))
    except OSError:
        raise
    except Exception as error:  # protobuf raises kinds of its own
        raise WeightsError(f"{path} is not an ONNX network ({type(error).__name__}). Export it again.") from error
    files = {location: path.parent / location for location in locations}
    for location, file in files.items():
        inside = file.resolve().is_relative_to(path.parent.resolve())
        if not (location and inside and file.is_file()):
            raise WeightsError(
                f"{path} has weights in {location!r}, expected a file in its folder. Put it there, or export the "
                "network with its weights inside: torch.onnx.export(..., external_data=False)."
            )
    return model, files


def _locations(message: Any) -> Iterator[str]:
    """Names of the files that tensors anywhere in a message of ONNX are kept in."""
    if message.DESCRIPTOR.name == "TensorProto":
        if message.data_location == message.EXTERNAL:
            yield next((entry.value for entry in message.external_data if entry.key == "location"), "")
        return
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _locations(part)
