"""What the server answers, as records that its OpenAPI description follows from."""

from __future__ import annotations

from pydantic import BaseModel, Field

__all__ = [
    "REFUSALS",
    "ActivationMap",
    "Alarm",
    "Answer",
    "Health",
    "ImageAnswer",
    "PatientReply",
    "RejectedFile",
]


# Status -> what it says of a request, for the OpenAPI description.
REFUSALS = {
    400: "The file did not arrive whole.",
    401: "The token is missing or wrong.",
    408: "The file took too long to arrive.",
    413: "The file is too large.",
    415: "The body is of another kind: the bare file is expected, or JSON for a patient.",
    422: "The file is no image, damaged, or has too many pixels; or a parameter is out of range.",
    429: "Too many requests a second.",
    503: "Too many images wait; try again.",
}


class ActivationMap(BaseModel):
    """Where the network looked: the share of each place in the class's logit minus the mean over classes."""

    height: int
    width: int
    values: list[float] = Field(description="Row by row; positive values support the class, negative oppose it.")


class Alarm(BaseModel):
    """A finding on the images that the server got: do not use its answers before the cause is known."""

    code: str = Field(description="Explained in docs/verdict.md.")
    severity: str = Field(description="serious or warning.")
    sentence: str


class Answer(BaseModel):
    """A prediction."""

    predicted: str = Field(description="The most probable class. Research use only, not a diagnosis.")
    probability: dict[str, float] = Field(description="Calibrated on images that the model was not fitted on.")
    set: list[str] = Field(
        description="Classes that include the true one at the stated coverage, on images like those of training."
    )
    coverage: float
    distance: float = Field(description="Mean cosine distance to the nearest training images.")
    unusual: bool = Field(description="True for an image unlike the training images: do not trust the class.")
    nearest: list[str] = Field(description="Ids of the nearest training images.")
    nearest_class: list[str] = Field([], description="Class of each of them; empty if the bundle does not say.")
    nearest_picture: list[str] = Field(
        [],
        description="Thumbnail of each of them, if the server may show them; empty where no file is known to be it.",
    )
    map: ActivationMap | None = Field(None, description="If requested, and if the model and its view have one.")
    caveat: str = ""
    notes: list[str] = Field(description="What a reader must know about `set` and `unusual`.")
    alarm: list[Alarm] = Field(default=[], description="Findings on the recent images of all requests, this one too.")


class Health(BaseModel):
    """What is being served."""

    status: str
    model: str
    backbone: str
    classes: list[str]
    sites: list[str] = Field(default=[], description="Sites that a request can name; empty unless site-adapted.")
    token: bool = Field(description="True if requests need a token.")
    unusual_from: float = Field(description="Distance beyond which distance alone makes an image unusual.")
    unusual_share: float = Field(
        description="Largest share of images like those of calibration that is flagged by chance."
    )
    alarm: list[Alarm] = Field(default=[], description="Findings on the recent images.")


class ImageAnswer(BaseModel):
    """The prediction on one image of a patient."""

    name: str
    predicted: str
    probability: dict[str, float]
    set: list[str]
    distance: float
    unusual: bool
    nearest: list[str]
    nearest_class: list[str] = []


class RejectedFile(BaseModel):
    """A file that could not be decoded."""

    name: str
    reason: str


class PatientReply(BaseModel):
    """One answer for a patient, and what it rests on."""

    patient: str
    predicted: str = Field(description="The most probable class. Research use only, not a diagnosis.")
    probability: dict[str, float] = Field(description="Normalised mean of the log-probabilities of the images.")
    images: int = Field(description="Number of images behind the answer.")
    unusual: int = Field(description="Number of them that are unlike the training images.")
    majority: str = Field(description="Class of most images.")
    agreement: float = Field(description="Share of the images whose predicted class is the patient's.")
    share: dict[str, float] = Field(description="Share of the images that are predicted as each class.")
    coverage: float
    answers: list[ImageAnswer]
    rejected: list[RejectedFile]
    alarm: list[Alarm] = Field(description="Findings on this patient's images.")
    caveat: str = ""
    notes: list[str]
