"""Pretrained weights from torchvision, timm and the Hugging Face hub."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from logging import ERROR
from pathlib import Path
from typing import Any

from featkit.backbones.architectures import (
    check_timm_name,
    timm_network,
    torchvision_builder,
    torchvision_preprocessing,
)
from featkit.backbones.base import Network
from featkit.backbones.checkpoints.files import shard_names
from featkit.errors import BackboneError, CheckpointError, DownloadError, FeatkitError
from featkit.registry import did_you_mean


@contextmanager
def explain_download_errors(what: str) -> Iterator[None]:
    """Turn whatever a download raises into an error that says what to do, and only that.

    What a client prints goes to stderr; its talk of retries goes nowhere.

    Raises:
        DownloadError: The weights could not be fetched.
    """
    from huggingface_hub.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(ERROR)
    try:
        with redirect_stdout(sys.stderr):
            yield
    except FeatkitError:
        raise
    except Exception as error:  # every hub client has its own family of errors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DownloadError(
            f"{what}: the weights could not be fetched ({reason}); connect to the network, put "
            f"them into the local cache, or give a checkpoint file instead"
        ) from error
    finally:
        logging.set_verbosity(verbosity)


def torchvision_pretrained(name: str, weights: str | None) -> Network:
    """Build a torchvision network with published weights, fetched once into torch's cache.

    Args:
        name: The network, such as ``resnet50``.
        weights: A member of its weights enumeration, such as ``IMAGENET1K_V1``; None for the best.

    Raises:
        BackboneError: There is no such network, or no such weights.
        DownloadError: The weights could not be fetched.
    """
    from torchvision import models

    builder = torchvision_builder(name)
    published = models.get_model_weights(name)
    if weights is not None and weights not in published.__members__:
        raise BackboneError(
            f"torchvision:{name} has no weights {weights!r}: "
            f"{did_you_mean(weights, published.__members__)}"
        )
    chosen = published.DEFAULT if weights is None else published[weights]
    with explain_download_errors(f"torchvision:{name}"):
        module = builder(weights=chosen, progress=False).eval()
    return Network(f"torchvision:{name}", module, torchvision_preprocessing(chosen))


def timm_pretrained(name: str) -> Network:
    """Build a timm network with published weights, fetched once into the hub's cache.

    Args:
        name: The network, such as ``resnet50.a1_in1k``.

    Raises:
        BackboneError: There is no such network, or it has no published weights.
        DownloadError: The weights could not be fetched.
    """
    import timm

    check_timm_name(name)
    if not timm.models.is_model_pretrained(name):
        raise BackboneError(f"timm:{name} has no published weights; use timm:{name}?weights=none")
    with explain_download_errors(f"timm:{name}"):
        module = timm.create_model(name, pretrained=True)
    return timm_network(module, name.partition(".")[0])


def hub_network(repository: str, revision: str | None) -> Network:
    """Build a network from a repository of the hub that holds a timm model.

    Args:
        repository: ``OWNER/NAME``.
        revision: A commit, tag or branch; None for the newest.

    Raises:
        DownloadError: The repository could not be fetched, or holds no timm model.
    """
    import timm

    pinned = f"{repository}@{revision}" if revision else repository
    with explain_download_errors(f"hf:{repository}"):
        module: Any = timm.create_model(f"hf-hub:{pinned}", pretrained=True)
    return timm_network(module, module.pretrained_cfg["architecture"])


def hub_file(repository: str, filename: str, revision: str | None) -> Path:
    """Fetch one file of a repository into the hub's cache, or find it there.

    Args:
        repository: ``OWNER/NAME``.
        filename: Path inside the repository.
        revision: A commit, tag or branch; None for the newest.

    Raises:
        DownloadError: The file could not be fetched.
    """
    from huggingface_hub import hf_hub_download

    with explain_download_errors(f"hf:{repository}/{filename}"):
        return Path(hf_hub_download(repository, filename, revision=revision))


def hub_checkpoint(repository: str, filename: str, revision: str | None) -> Path:
    """Fetch a checkpoint of a repository, with all of its parts where it has several.

    Args:
        repository: ``OWNER/NAME``.
        filename: Path inside the repository, such as ``model.safetensors.index.json``.
        revision: A commit, tag or branch; None for the newest.

    Raises:
        CheckpointError: The index of the parts is damaged.
        DownloadError: A file could not be fetched.
    """
    path = hub_file(repository, filename, revision)
    if filename.endswith(".index.json"):
        folder = filename.rpartition("/")[0]
        try:
            parts = sorted(set(shard_names(path).values()))
        except CheckpointError as error:
            raise CheckpointError(f"hf:{repository}/{filename}: {error}") from error
        for part in parts:
            hub_file(repository, f"{folder}/{part}".lstrip("/"), revision)
    return path
