"""Training runs: a folder that holds the networks of one training, and what is read of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from featkit.backbones.base import Network
from featkit.backbones.checkpoints.digest import file_sha256
from featkit.backbones.checkpoints.load import load_checkpoint
from featkit.data.preprocessing import Preprocessing
from featkit.documents import parse_json
from featkit.errors import BackboneError, CheckpointError, one_line
from featkit.spec import kind_at
from featkit.store.fingerprint import check_digest, signed_json
from featkit.store.verify import Check

RUN_FILE = "run.json"
RUN_FORMAT = "featkit-run"
RUN_VERSION = 1
WEIGHTS_FOLDER = "weights"
SHARED_PIXELS = "pixels-{}.tmp"


@dataclass(frozen=True)
class RunRecord:
    """What ``run.json`` says of a training run.

    Attributes:
        method: What it trains with, such as ``SimCLR``.
        architecture: Of its network.
        preprocessing: From a decoded image to that network's input.
        settings: Everything else that decides the weights, by name.
        weights: The sha256 of the weights of each epoch that is kept.
        chosen: The epoch whose network the run stands for; None of an unfinished run.
    """

    method: str
    architecture: str
    preprocessing: Preprocessing
    settings: Mapping[str, Any]
    weights: Mapping[int, str] = field(default_factory=dict)
    chosen: int | None = None

    def to_json(self) -> str:
        """Return the content of ``run.json``."""
        content = {"format": RUN_FORMAT, "version": RUN_VERSION, **asdict(self)}
        return signed_json(content)


def is_run(folder: Path) -> bool:
    """Return whether a folder holds a training run."""
    return kind_at(folder / RUN_FILE) == "file"


def verify_run(folder: Path) -> Iterator[Check]:
    """Compare what a run keeps with what it says of it.

    Yields:
        One check a file: ``run.json``, then the weights of each epoch.

    Cost: one read of every file.
    """
    try:
        record = read_run(folder)
    except CheckpointError as error:
        yield Check(RUN_FILE, (str(error),))
        return
    yield Check(RUN_FILE)
    for epoch, wanted in sorted(record.weights.items()):
        path = weights_file(folder, epoch)
        name = path.relative_to(folder).as_posix()
        try:
            found = file_sha256(path, anew=True)
        except OSError as error:
            yield Check(name, (f"cannot be read ({error.strerror})",))
            continue
        wrong = "its bytes are not the ones that were written; take another epoch, or train again"
        yield Check(name, (wrong,) if found != wanted else ())


def weights_file(folder: Path, epoch: int) -> Path:
    """Return where a run keeps the weights of an epoch.

    Example:
        >>> weights_file(Path("run"), 30).as_posix()
        'run/weights/epoch-0030.safetensors'
    """
    return folder / WEIGHTS_FOLDER / f"epoch-{epoch:04d}.safetensors"


def read_run(folder: Path) -> RunRecord:
    """Read ``run.json``.

    Raises:
        CheckpointError: It is not there, not whole, or of a newer version.
    """
    path = folder / RUN_FILE
    try:
        content = check_digest(parse_json(path.read_bytes()))
        if content["format"] == RUN_FORMAT and content["version"] <= RUN_VERSION:
            return _record(content)
        why = f"{content['format']}, version {content['version']}"
        if content["format"] == RUN_FORMAT:
            why += f", which is newer than {RUN_VERSION}: upgrade featkit"
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else one_line(error, 200)
    raise CheckpointError(f"{path} is damaged, or no training run of this featkit ({why})")


def _record(content: Mapping[str, Any]) -> RunRecord:
    recipe = content["preprocessing"]
    lists = {name: tuple(value) for name, value in recipe.items() if isinstance(value, list)}
    return RunRecord(
        method=str(content["method"]),
        architecture=str(content["architecture"]),
        preprocessing=Preprocessing(**recipe | lists),
        settings=dict(content["settings"]),
        weights={int(epoch): str(digest) for epoch, digest in content["weights"].items()},
        chosen=content["chosen"] if content["chosen"] is None else int(content["chosen"]),
    )


def run_network(folder: Path, epoch: int | None = None) -> Network:
    """Load the network of a training run.

    Args:
        folder: Of the run.
        epoch: Which of the epochs that it keeps; None for the one that the run stands for.

    Raises:
        BackboneError: The run is not finished, or does not keep the epoch.
        CheckpointError: It is damaged.
    """
    record = read_run(folder)
    kept = ", ".join(map(str, sorted(record.weights))) or "none"
    if epoch is None:
        if record.chosen is None:
            raise BackboneError(
                f"{folder}: this run is not finished: run the same featkit train again, which goes "
                f"on from where it was, or take an epoch that it keeps with ?epoch= ({kept})"
            )
        epoch = record.chosen
    if epoch not in record.weights:
        raise BackboneError(
            f"{folder}: epoch {epoch} is not kept; kept are {kept} (featkit train --keep-every "
            f"keeps more)"
        )
    path = weights_file(folder, epoch)
    network = load_checkpoint(path, record.architecture, sha256=record.weights[epoch])
    assert network.checkpoint is not None  # noqa: S101 - it came from a file
    report = replace(
        network.checkpoint,
        weights="run",
        preprocessing="layout",
        method=record.method,
        epochs=epoch,
    )
    return replace(network, preprocessing=record.preprocessing, checkpoint=report)
