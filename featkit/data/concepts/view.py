"""The resolution at which images are looked at for colours and textures."""

from __future__ import annotations

from PIL import Image

SHORTER_SIDE = 256
_LONGER_SIDE = 4096  # of images that are long and thin


def view(image: Image.Image) -> Image.Image:
    """Return an image at the resolution at which its colours and textures are named.

    It does not depend on the network, so that the labels of two networks' images are the same.

    Args:
        image: Mode RGB.

    Returns:
        With a shorter side of at most 256 pixels and a longer one of at most 4,096: larger images
        are reduced with an antialiased bilinear filter, smaller ones stay as they are.

    Example:
        >>> view(Image.new("RGB", (480, 360))).size
        (341, 256)
    """
    shorter, longer = sorted(image.size)
    scale = min(SHORTER_SIDE / shorter, _LONGER_SIDE / longer)
    if scale >= 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)
