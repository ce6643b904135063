"""What the `manifest.json` of an image store holds."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_FORMAT = 1
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Manifest(BaseModel):
    """Counts, names and channel statistics of a store, its origin, and the SHA-256 of each file."""

    model_config = ConfigDict(extra="forbid")

    format: int = Field(_FORMAT, ge=1, le=_FORMAT)
    name: str
    count: int = Field(ge=1, le=2**40)
    height: int = Field(ge=1, le=2**20)
    width: int = Field(ge=1, le=2**20)
    classes: list[str] = []
    factors: list[str] = []
    mean: tuple[_Share, _Share, _Share]
    sd: tuple[_Share, _Share, _Share]
    source: str
    notes: list[str] = []
    left_out: dict[str, str] = {}
    sha256: dict[str, str]
