"""Semantic segmentation networks of the Hugging Face hub."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from featkit.backbones.hub import explain_download_errors
from featkit.backbones.segmenters.network import NetworkConcepts, classes, objects
from featkit.data.concepts.base import Labels
from featkit.errors import BackboneError, MissingExtraError
from featkit.spec import check_options, split_query


def open_transformers_segmenter(spec: str, device: str = "cpu") -> NetworkConcepts:
    """Build a semantic segmentation network with transformers; no code of a repository is run.

    Args:
        spec: ``hf:OWNER/REPO`` or ``hf:FOLDER``; ``?revision=`` a commit, tag or branch.
        device: Where it runs.

    Raises:
        BackboneError: The name is none, or the network gives no scores a pixel.
        DownloadError: It could not be fetched, or is no semantic segmentation network.
        MissingExtraError: transformers is not installed.
    """
    target, options = split_query(spec)
    check_options(spec, options, ["revision"])
    repository, revision = target.partition(":")[2], options.get("revision")
    if not repository:
        raise BackboneError(f"{spec!r}: a hub repository is hf:OWNER/REPO")
    try:
        import transformers  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise MissingExtraError(
            f"{spec!r} needs the package transformers; install it with pip install transformers"
        ) from None
    with explain_download_errors(f"hf:{repository}"):
        processor: Any = transformers.AutoImageProcessor.from_pretrained(
            repository, revision=revision
        )
        module: Any = transformers.AutoModelForSemanticSegmentation.from_pretrained(
            repository, revision=revision
        )
    module = module.eval().to(device)
    # a crop would leave the borders of the image without labels
    crop = {"do_center_crop": False} if hasattr(processor, "do_center_crop") else {}

    def predict(image: Image.Image) -> Labels:
        inputs = processor(images=image, return_tensors="pt", **crop).to(device)
        with torch.inference_mode():
            scores = module(**inputs).logits
        return classes(scores)

    names = {int(code): str(name) for code, name in module.config.id2label.items()}
    settings = {"processor": processor.to_json_string(), "transformers": transformers.__version__}
    return NetworkConcepts(
        spec, f"hf:{type(module).__name__}", module, objects(names), predict, settings
    )
