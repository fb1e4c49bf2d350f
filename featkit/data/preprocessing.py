"""From a decoded image to a network's input."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featkit.errors import BackboneError, UsageError
from featkit.registry import did_you_mean

if TYPE_CHECKING:
    import torch

_FILTERS = {each.name.lower(): each for each in Image.Resampling}
_LARGEST = 100_000_000  # pixels of a resized image (300 MB) before it is resized only in part


_LARGEST_NUMBER = 1e30
"""Of means and deviations: what float32 holds, with room."""


@dataclass(frozen=True)
class Preprocessing:
    """Resize, centre crop and normalisation as a network was trained with.

    Attributes:
        size: (height, width) of the network's input in pixels.
        resize: The image's shorter side after resizing, or its exact (height, width); None keeps
            the image as it is.
        interpolation: nearest, bilinear, bicubic, lanczos, box or hamming; antialiased.
        mean: Subtracted from each of the 3 channels, on the scale 0..1.
        std: Divides each of the 3 channels, on the scale 0..1.

    Raises:
        UsageError: A value is of the wrong kind or out of range.

    Example:
        >>> recipe = Preprocessing((224, 224), 256, "bilinear", (0.5,) * 3, (0.5,) * 3)
        >>> recipe.pixels(Image.new("RGB", (500, 375))).shape
        (224, 224, 3)
        >>> recipe.resized(112).resize
        128
    """

    size: tuple[int, int]
    resize: int | tuple[int, int] | None
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.interpolation not in _FILTERS:
            hint = did_you_mean(self.interpolation, sorted(_FILTERS))
            raise UsageError(f"unknown interpolation {self.interpolation!r}: {hint}")
        sides = self.resize if isinstance(self.resize, tuple) else (self.resize or 1,)
        if not all(isinstance(side, Integral) for side in (*self.size, *sides)):
            raise UsageError(f"size {self.size} and resize {self.resize} are whole numbers")
        is_pair = not isinstance(self.resize, tuple) or len(self.resize) == 2
        if len(self.size) != 2 or not is_pair:
            raise UsageError(f"size {self.size} and resize {self.resize}: give height and width")
        if min(*self.size, *sides) < 1 or self.resize == 0:
            raise UsageError(f"size {self.size} and resize {self.resize} are positive pixels")
        numbers = (*self.mean, *self.std)
        if len(self.mean) != 3 or len(self.std) != 3 or not all(map(_is_number, numbers)):
            raise UsageError(f"mean {self.mean} and std {self.std} have three numbers each")
        if not all(each > 0 for each in self.std):
            raise UsageError(f"std is what pixels are divided by, more than 0; not {self.std}")

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop one image, bit for bit as torchvision does on a PIL image.

        An image so long and thin that its resized form would exceed 100 megapixels is resized only
        where the crop looks; that differs by rounding and, where a filter overshoots, by clipping.

        Args:
            image: Mode RGB, any size.

        Returns:
            (height, width, 3) uint8 of ``size``; black where the resized image does not reach.

        Cost:
            One Pillow resize and one copy.
        """
        height, width = self.size
        resized, (left, top) = self.placement(image.size)
        method = _FILTERS[self.interpolation]
        if resized[0] * resized[1] > _LARGEST:
            image = _resize_part(image, resized, (left, top, width, height), method)
            left, top = min(left, 0), min(top, 0)
        elif resized != image.size:
            image = image.resize(resized, method)
        return np.array(image.crop((left, top, left + width, top + height)))

    def placement(self, image_size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return where the crop lies on an image.

        Args:
            image_size: (width, height) of the image as it was decoded.

        Returns:
            (width, height) of the resized image, and (left, top) of the crop in it; negative where
            the crop begins outside and is padded.

        Example:
            >>> recipe = Preprocessing((224, 224), 256, "bilinear", (0.5,) * 3, (0.5,) * 3)
            >>> recipe.placement((480, 360))
            ((341, 256), (58, 16))
        """
        resized = self._resized_size(*image_size)
        return resized, (_offset(resized[0], self.size[1]), _offset(resized[1], self.size[0]))

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scale pixels to 0..1, subtract the mean and divide by the deviation.

        Formula: (pixels / 255 - mean) / std, computed as one multiplication and addition.

        Args:
            pixels: (b, h, w, 3) uint8 on any device.

        Returns:
            (b, 3, h, w) float32 on that device, in channels-last memory.

        Cost:
            One read and one write on a GPU.

        Example:
            >>> import torch
            >>> recipe = Preprocessing((1, 1), None, "bilinear", (0.5,) * 3, (0.25,) * 3)
            >>> normal = recipe.normalize(torch.tensor([[[[0, 255, 255]]]], dtype=torch.uint8))
            >>> normal.shape, normal.flatten().round(decimals=4).tolist()
            (torch.Size([1, 3, 1, 1]), [-2.0, 2.0, 2.0])
        """
        import torch

        scale, shift = _affine(self.mean, self.std, str(pixels.device))
        normal = torch.addcmul(shift, pixels, scale).permute(0, 3, 1, 2)
        return normal.contiguous(memory_format=torch.channels_last)

    def normalize_views(self, views: torch.Tensor) -> torch.Tensor:
        """Normalise images that are on the scale 0..1 already.

        Args:
            views: (b, 3, h, w) float32 in [0, 1].

        Returns:
            The same shape, in channels-last memory.
        """
        import torch

        scale, shift = _affine(self.mean, self.std, str(views.device))
        normal = torch.addcmul(shift[:, None, None], views, 255 * scale[:, None, None])
        return normal.contiguous(memory_format=torch.channels_last)

    def resized(self, size: int) -> Preprocessing:
        """Return the same recipe for another square input, resizing in proportion.

        Args:
            size: Height and width of the input in pixels.

        Returns:
            A recipe in which ``resize``, where there is one, is to ``size`` as before (rounded).
        """
        height, width = self.size
        resize = self.resize
        if isinstance(resize, tuple):
            resize = round(resize[0] * size / height), round(resize[1] * size / width)
        elif resize is not None:
            resize = round(resize * size / min(height, width))
        return replace(self, size=(size, size), resize=resize)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON holds them; equal recipes give equal dictionaries.

        Example:
            >>> Preprocessing((2, 2), None, "box", (0.0,) * 3, (1.0,) * 3).as_dict()["size"]
            [2, 2]
        """
        fields = asdict(self)
        fields["mean"] = [float(each) for each in self.mean]
        fields["std"] = [float(each) for each in self.std]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    @classmethod
    def from_torchvision(cls, transforms: Any) -> Preprocessing:
        """Read the recipe of ``Weights.….transforms()``.

        Args:
            transforms: An ``ImageClassification`` preset of torchvision.

        Raises:
            BackboneError: It is another kind of transform.
        """
        try:
            crop, resize = transforms.crop_size, transforms.resize_size
            interpolation = transforms.interpolation.value.removesuffix("-exact")
            mean, std = tuple(transforms.mean), tuple(transforms.std)
        except AttributeError:
            raise BackboneError(
                f"{type(transforms).__name__} is not a classification preset of torchvision"
            ) from None
        size = (crop[0], crop[-1])
        return cls(size, resize[0] if len(resize) == 1 else tuple(resize), interpolation, mean, std)

    @classmethod
    def from_timm(cls, data_config: Mapping[str, Any]) -> Preprocessing:
        """Read the recipe of ``timm.data.resolve_model_data_config(model)``.

        Args:
            data_config: With ``input_size``, ``interpolation``, ``mean``, ``std``, ``crop_pct`` and
                ``crop_mode`` (``center`` or ``squash``).

        Raises:
            BackboneError: The recipe cannot be expressed: other crop modes, a centre crop that is
                not square, or other than 3 channels.
        """
        channels, height, width = data_config["input_size"]
        mode = data_config.get("crop_mode") or "center"
        share = data_config.get("crop_pct") or 0.875
        if channels != 3:
            raise BackboneError(f"input with {channels} channels is unsupported; wanted 3")
        if mode not in {"center", "squash"}:
            raise BackboneError(f"crop mode {mode!r} is unsupported; there is center, squash")
        if mode == "center" and height != width:
            raise BackboneError(f"centre crop to {height} x {width} is unsupported; wanted square")
        full = math.floor(height / share), math.floor(width / share)
        resize = full if mode == "squash" else full[0]
        mean, std = tuple(data_config["mean"]), tuple(data_config["std"])
        return cls((height, width), resize, data_config["interpolation"], mean, std)

    def _resized_size(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) after resizing; the longer side is rounded down."""
        if self.resize is None:
            return width, height
        if isinstance(self.resize, tuple):
            return self.resize[1], self.resize[0]
        longer = int(self.resize * max(width, height) / min(width, height))
        return (self.resize, longer) if width <= height else (longer, self.resize)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < _LARGEST_NUMBER


def _offset(have: int, want: int) -> int:
    """Return where a centred crop starts; negative where the image is padded.

    Halves go to the even pixel when cropping and outwards at the end when padding, as in
    torchvision's ``center_crop``.
    """
    return round((have - want) / 2) if have >= want else -((want - have) // 2)


def _resize_part(
    image: Image.Image,
    resized: tuple[int, int],
    crop: tuple[int, int, int, int],
    method: Image.Resampling,
) -> Image.Image:
    """Resize only what ``crop`` (left, top, width, height in the resized image) shows."""
    left, top = max(crop[0], 0), max(crop[1], 0)
    right, bottom = min(left + crop[2], resized[0]), min(top + crop[3], resized[1])
    x, y = image.width / resized[0], image.height / resized[1]
    return image.resize(
        (right - left, bottom - top),
        method,
        box=(left * x, top * y, min(right * x, image.width), min(bottom * y, image.height)),
    )


@functools.lru_cache(maxsize=64)
def _affine(
    mean: tuple[float, ...], std: tuple[float, ...], device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scale and shift on the device; kept there, since each copy would wait for it."""
    import torch

    scale = torch.tensor([1 / (255 * s) for s in std], dtype=torch.float32, device=device)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], dtype=torch.float32)
    return scale, shift.to(device)
