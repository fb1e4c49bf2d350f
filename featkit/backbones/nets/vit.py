"""Vision transformers as DINO and MoCo v3 train them, from timm's parts.

Source: Caron et al., Emerging properties in self-supervised vision transformers, 2021,
arXiv:2104.14294; Chen et al., An empirical study of training self-supervised vision transformers,
2021, arXiv:2104.02057 (whose small one has 12 heads).
"""

from __future__ import annotations

from torch import nn

EMBEDDINGS = {"tiny": (192, 12), "small": (384, 12), "base": (768, 12), "large": (1024, 24)}
"""Width and number of blocks by name."""

PATCHES = (8, 14, 16)


def vit(size: str, patch: int, heads: int | None = None, num_classes: int = 1000) -> nn.Module:
    """Build a vision transformer for 224 pixels that gives its class token to ``head``.

    Args:
        size: A key of ``EMBEDDINGS``.
        patch: Pixels of a patch's side.
        heads: Of each attention; None for one in 64 dimensions.
        num_classes: Outputs of the linear ``head``.

    Example:
        >>> vit("tiny", 16).blocks[0].attn.num_heads
        3
    """
    from timm.models.vision_transformer import VisionTransformer

    width, depth = EMBEDDINGS[size]
    module: nn.Module = VisionTransformer(
        img_size=224,
        patch_size=patch,
        embed_dim=width,
        depth=depth,
        num_heads=heads or width // 64,
        num_classes=num_classes,
    )
    return module


def vit_name(size: str, patch: int, heads: int | None = None) -> str:
    """Return what such a network is called.

    Example:
        >>> vit_name("small", 16), vit_name("small", 16, 12)
        ('vit_small_patch16', 'vit_small_patch16_heads12')
    """
    return f"vit_{size}_patch{patch}" + (f"_heads{heads}" if heads else "")
