"""What the server is asked about a patient: several images in JSON, bounded before anything is built of them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, FailFast, Field, ValidationError, create_model

from ball_features.errors import ConfigError, ImageError

__all__ = ["ImageFile", "PatientRequest", "file_of", "patient_request", "read_request"]

_NAME = 500  # characters of a name
_MORE = 16  # values beside the name that an image may have
_ERRORS = 3  # that an answer lists
_PART = 1 << 20  # bytes that are looked at before other threads may run
_DATA_URL = re.compile(r"\Adata:[A-Za-z0-9/+.;=-]{0,60}?;base64,")
_LINE_ENDS = dict.fromkeys(map(ord, " \r\n\t"))


class ImageFile(BaseModel):
    """One image of a patient."""

    name: str = Field("", max_length=_NAME, description="Name that the answer repeats.")
    data: str = Field(
        description="The file, in base64, as it is or as a data URL.", json_schema_extra={"format": "base64"}
    )


class PatientRequest(BaseModel):
    """Images of one patient."""

    patient: str = Field("", max_length=_NAME, description="Name that the answer repeats.")
    images: Annotated[list[ImageFile], FailFast()] = Field(min_length=1, description="The images.")

    @classmethod
    def whole_schema(cls) -> Mapping[str, Any]:
        """The JSON schema without references, as it may stand inside another document."""
        schema = cls.model_json_schema()
        schema["properties"]["images"]["items"] = schema.pop("$defs")[ImageFile.__name__]
        return schema


def patient_request(images: int) -> type[PatientRequest]:
    """The record of a request with so many images or fewer."""
    bounded: Any = (
        Annotated[list[ImageFile], FailFast()],
        Field(min_length=1, max_length=images, description="The images."),
    )
    return create_model("PatientRequest", __base__=PatientRequest, images=bounded)


def read_request(kind: type[PatientRequest], images: int, body: bytes) -> PatientRequest:
    """Read a request.

    Args:
        kind: record from `patient_request`.
        images: largest number of images.
        body: JSON.

    Raises:
        ConfigError: The body is no such JSON, or has more values than so many images need.
    """
    most = (images + 1) * (_NAME + _MORE)
    if _has_more_values(body, most):
        raise ConfigError(f"Got more than {most} values in JSON, expected {images} images or fewer.")
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        # Each value is built before it is checked, but at most so many; what was got is not repeated.
        found = error.errors(include_url=False, include_input=False, include_context=False)
        told = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}"[:_NAME] for one in found[:_ERRORS]]
        raise ConfigError("; ".join(told)) from None


def _has_more_values(body: bytes, most: int) -> bool:
    """Whether JSON may hold more values than that: each but the first follows a comma, a colon or a bracket.

    Base64 has none of these. The few that names have are within what `_NAME` allows.
    """
    found = 0
    for start in range(0, len(body), _PART):
        found += sum(body.count(mark, start, start + _PART) for mark in (b",", b":", b"["))
        if found > most:
            return True
    return False


def file_of(image: ImageFile, megabytes: float) -> bytes:
    """The bytes of an image's file.

    Args:
        image: image of a request.
        megabytes: size of a file in megabytes.

    Raises:
        ImageError: It is larger, or no base64.
    """
    most = int(megabytes * 1e6)
    # Some write line ends into base64, at most one after four letters; a browser's FileReader writes a data URL.
    if len(image.data) > most * 2 + 100:
        raise ImageError(f"is larger than {megabytes:g} MB")
    text = _DATA_URL.sub("", image.data, count=1).translate(_LINE_ENDS)
    try:
        data = base64.b64decode(text, validate=True)  # without, what is no letter of it is passed over
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"is no base64 ({error}); expected the letters A-Z a-z 0-9 + / and = at the end") from error
    if len(data) > most:
        raise ImageError(f"is larger than {megabytes:g} MB")
    return data
