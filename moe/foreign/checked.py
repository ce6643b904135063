"""A foreign model behind the interface of our own, every answer checked.

Axes: B images, C features, S image side, E experts, K slots of an image, D size of a readout.
"""

import hashlib
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from moe.data.preparation import Preparation
from moe.errors import UserError
from moe.foreign.trouble import theirs
from moe.gates.told import Told
from moe.routing import NONE, Routing

_SIDES = range(1, 4097)  # pixels of an image's side
_UNKNOWN = (0, 0, 0)


class Foreign(nn.Module):
    """A foreign model behind the interface of `moe.model.MoE`; what breaks a guarantee of its is a UserError.

    Args:
        model: it, in eval mode.
        reference: what it was asked for by, for messages.

    Attributes:
        sizes: experts E, slots K of an image, size D of a readout.
        preparation: of its images.
        told: what it is told of an image beside its pixels.
    """

    told = Told.NOISE  # which in evaluation is nothing

    def __init__(self, model: nn.Module, reference: str) -> None:
        super().__init__()
        self.model, self.reference = model, reference
        self.sizes = _UNKNOWN
        self.preparation = self._preparation()
        for method in ("route", "all_readouts"):
            if not callable(getattr(model, method, None)):
                raise UserError(f"the model of {reference} has no {method}; docs/probes.md says what it needs")
        side = self.preparation.image_size
        with torch.inference_mode():
            self.route_and_readouts(torch.zeros(2, 3, side, side))

    @property
    def has_shared(self) -> bool:
        """Whether it says what its experts are given."""
        return callable(getattr(self.model, "shared_features", None))

    def route_and_readouts(self, x_BCHW: Tensor, told: Tensor | None = None) -> tuple[Routing, Tensor]:
        """Routing with the largest gate first, and readouts (E, B, D), float32."""
        with theirs(f"the model of {self.reference}"):
            said: Any = self.model.route(x_BCHW)  # type: ignore[operator]
            readouts: Any = self.model.all_readouts(x_BCHW)  # type: ignore[operator]
        routing = self._routing(said, len(x_BCHW))
        wanted = (routing.logits.shape[1], len(x_BCHW))
        self._expect(_is(readouts, 3) and readouts.shape[:2] == wanted and readouts.shape[2] > 0,
                     "all_readouts", readouts, f"numbers (E, B, D), here ({wanted[0]}, {wanted[1]}, D)")  # fmt: skip
        sizes = (readouts.shape[0], routing.indices.shape[1], readouts.shape[2])
        if self.sizes not in (_UNKNOWN, sizes):
            raise UserError(f"the model of {self.reference} gives (E, K, D) = {sizes} after {self.sizes}")
        self.sizes = sizes
        return routing, readouts.float()

    def pooled_shared(self, x_BCHW: Tensor) -> Tensor:
        """What its experts are given (B, C), float32; only where `has_shared`."""
        with theirs(f"shared_features of {self.reference}"):
            found: Any = self.model.shared_features(x_BCHW)  # type: ignore[operator]
        self._expect(_is(found, 2) and len(found) == len(x_BCHW), "shared_features", found,
                     f"numbers (B, C), here ({len(x_BCHW)}, C)")  # fmt: skip
        features_BC: Tensor = found.float()
        return features_BC

    @cached_property
    def digest(self) -> str:
        """Checksum of its weights, read once, and of how images are prepared for it."""
        found = hashlib.sha256(repr(self.preparation).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            if isinstance(tensor, Tensor):
                found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    def _routing(self, said: Any, images: int) -> Routing:
        parts = list(said[:3]) if isinstance(said, tuple | list) else []
        self._expect(len(parts) == 3, "route", said, "a tuple of logits (B, E), experts (B, K) and weights (B, K)")
        logits_BE, indices_BK, weights_BK = parts
        self._expect(_is(logits_BE, 2) and len(logits_BE) == images and logits_BE.shape[1] > 0,
                     "route", logits_BE, f"logits (B, E), here ({images}, E)")  # fmt: skip
        experts = logits_BE.shape[1]
        self._expect(_is(indices_BK, 2, whole=True) and len(indices_BK) == images and indices_BK.shape[1] > 0,
                     "route", indices_BK, f"whole numbers of experts (B, K), here ({images}, K)")  # fmt: skip
        shape = tuple(indices_BK.shape)
        self._expect(_is(weights_BK, 2) and weights_BK.shape == shape,
                     "route", weights_BK, f"weights, one for each chosen expert, {shape}")  # fmt: skip
        indices_BK, weights_BK = indices_BK.long(), weights_BK.float()
        if ((indices_BK < NONE) | (indices_BK >= experts)).any():
            raise UserError(f"route of {self.reference} names experts outside 0..{experts - 1} (-1 for an empty slot)")
        ranked_BK = indices_BK.sort(dim=1).values
        if ((ranked_BK[:, 1:] == ranked_BK[:, :-1]) & (ranked_BK[:, 1:] != NONE)).any():
            raise UserError(f"route of {self.reference} gives an image the same expert twice")
        if not (torch.isfinite(weights_BK) & (weights_BK >= 0)).all():
            raise UserError(f"route of {self.reference} gives weights that are negative or not finite")
        empty_BK = indices_BK == NONE
        order_BK = weights_BK.masked_fill(empty_BK, -1.0).argsort(dim=1, descending=True, stable=True)
        weights_BK = weights_BK.masked_fill(empty_BK, 0.0)
        return Routing(logits_BE.float(), indices_BK.gather(1, order_BK), weights_BK.gather(1, order_BK))

    def _preparation(self) -> Preparation:
        size, mean, sd = (getattr(self.model, name, None) for name in ("image_size", "mean", "sd"))
        if isinstance(size, bool) or not isinstance(size, int) or size not in _SIDES:
            raise UserError(f"the model of {self.reference} needs image_size, the side of its images in pixels")
        channels = []
        for name, values in (("mean", mean), ("sd", sd)):
            try:
                three = tuple(float(value) for value in values)  # type: ignore[union-attr]
            except (TypeError, ValueError, RuntimeError):
                three = ()
            if len(three) != 3 or not all(abs(value) < float("inf") for value in three):
                raise UserError(
                    f"the model of {self.reference} needs {name}: three numbers, of pixels at a scale of 0..1"
                )
            channels.append(three)
        if min(channels[1]) <= 0:
            raise UserError(f"sd of the model of {self.reference} must be above 0")
        return Preparation(size, *channels)

    def _expect(self, right: bool, method: str, given: Any, needed: str) -> None:
        if not right:
            what = f"{given.dtype} {tuple(given.shape)}" if isinstance(given, Tensor) else f"a {type(given).__name__}"
            raise UserError(f"{method} of {self.reference} gives {what}; needed are {needed}")


def _is(found: Any, axes: int, *, whole: bool = False) -> bool:
    if not isinstance(found, Tensor) or found.ndim != axes or found.is_complex() or found.dtype is torch.bool:
        return False
    return found.is_floating_point() != whole
