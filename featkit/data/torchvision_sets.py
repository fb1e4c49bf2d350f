"""The data sets of torchvision as image sources."""

from __future__ import annotations

import hashlib
import inspect
import operator
import os
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featkit.data.arrays import array_digest
from featkit.data.decoding import decode_errors, to_rgb
from featkit.data.files import file_digest, file_stamps
from featkit.data.packed import PackedStrings, row_numbers
from featkit.errors import DecodeError, MissingExtraError, SourceError
from featkit.registry import did_you_mean
from featkit.spec import check_options, given_path, split_query

PREFIX = "torchvision:"
_SPLIT_PARAMETERS = ("train", "split", "image_set")
_NOT_OPTIONS = {
    "download",
    "transform",
    "target_transform",
    "transforms",
    "loader",
    "is_valid_file",
}
_LABELS = ("targets", "labels", "_labels", "y")
_FILES = ("samples", "_samples", "imgs", "images", "_images", "_image_files", "data")
_PAIRS = ("samples", "_samples", "imgs", "_flat_character_images")


@dataclass(frozen=True, eq=False)
class TorchvisionSource:
    """One data set of torchvision: a `featkit.data.sources.Source`.

    Attributes:
        name: The source as the user wrote it.
        dataset: The torchvision data set; its rows are pairs of image and target.
        ids: n row numbers.
        labels: (n,) int64 class indices, or None.
        classes: The class names that labels index.
        notes: One-line remarks for the user.
        files: The n image files where the set keeps such a list, else None.
    """

    name: str
    dataset: Any
    ids: Sequence[str]
    labels: NDArray[np.int64] | None = None
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    files: Sequence[str] | None = None

    def read(self, row: int) -> Image.Image:
        """Return sample ``row`` as torchvision decodes it, in RGB.

        Raises:
            DecodeError: torchvision cannot read the image.
        """
        with decode_errors():
            return to_rgb(_sample(self.dataset, row)[0])

    def digest(self, row: int) -> bytes:
        """Return the sha256 (32 bytes) of the sample's array or file, else of its pixels."""
        if self.files is not None:
            return file_digest(self.files[row])
        data: Any = getattr(self.dataset, "data", None)
        shape = getattr(data, "shape", None)
        if shape is not None and len(shape) > 2 and shape[0] == len(self.ids):
            return array_digest(np.asarray(data[row]))
        try:
            return array_digest(np.asarray(self.read(row)))
        except DecodeError as error:
            return hashlib.sha256(f"unreadable: {error}".encode()).digest()

    def stamps(self) -> NDArray[np.int64] | None:
        """Return (n, 2) file sizes in bytes and modification times in ns; None without files."""
        return None if self.files is None else file_stamps(self.files)


def open_torchvision(spec: str) -> TorchvisionSource:
    """Open a data set of torchvision that is on this machine; nothing is downloaded.

    Args:
        spec: ``torchvision:NAME[/SPLIT][?option=value&…]``. The options are those of the set's
            constructor; SPLIT goes to its ``train`` (as ``train`` or ``test``), ``split`` or
            ``image_set``.

    Returns:
        The source; labels are None where targets are not class indices.

    Raises:
        SourceError: The set, split or files do not exist, or its samples are not single images.
        UsageError: An option is not known or has an unsuitable value.
        MissingExtraError: torchvision needs a package that is not installed.

    Cost:
        The constructor's, two decoded images, and all of them where the set lists no labels.

    Example:
        >>> fake = open_torchvision("torchvision:FakeData?size=20&image_size=3,8,8")
        >>> len(fake.ids), fake.read(3).size
        (20, (8, 8))
    """
    text, options = split_query(spec)
    name, _, split = text.removeprefix(PREFIX).partition("/")
    kind = _set_class(spec, name)
    dataset = _construct(spec, kind, _arguments(spec, kind, split, options))
    n = len(dataset)
    if not n:
        raise SourceError(f"{spec!r}: the set is empty")
    ends = dict(_readable_samples(dataset, sorted({0, n - 1})))
    if not all(_is_image_and_target(sample) for sample in ends.values()):
        raise SourceError(f"{spec!r}: {name} does not consist of single images; choose another set")
    labels, notes = _labels(spec, dataset, {row: sample[1] for row, sample in ends.items()})
    classes = None
    if labels is not None:
        labels, classes = _classes(dataset, labels)
    return TorchvisionSource(spec, dataset, row_numbers(n), labels, classes, notes, _files(dataset))


def _set_class(spec: str, name: str) -> type:
    from torchvision import datasets

    known = {each: getattr(datasets, each) for each in datasets.__all__}
    known = {each: kind for each, kind in known.items() if each != "VisionDataset"}
    if name not in known:
        raise SourceError(f"{spec!r}: torchvision has no set {name!r}: {did_you_mean(name, known)}")
    kind: type = known[name]
    return kind


def _parameters(kind: type) -> dict[str, inspect.Parameter]:
    """Return the constructor's parameters, those that it hands to its parents included."""
    found: dict[str, inspect.Parameter] = {}
    for each in kind.__mro__:
        if "__init__" not in vars(each):
            continue
        own = list(inspect.signature(vars(each)["__init__"]).parameters.values())[1:]
        for parameter in own:
            if parameter.kind is not parameter.VAR_KEYWORD:
                found.setdefault(parameter.name, parameter)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in own):
            break
    return found


def _arguments(spec: str, kind: type, split: str, options: dict[str, str]) -> dict[str, Any]:
    parameters = _parameters(kind)
    known = {each for each in parameters if each not in _NOT_OPTIONS and not each.startswith("_")}
    check_options(spec, options, known)
    given = {key: _value(spec, parameters[key], text) for key, text in options.items()}
    if split:
        target = next((each for each in _SPLIT_PARAMETERS if each in parameters), None)
        if target is None:
            raise SourceError(f"{spec!r}: {kind.__name__} has no splits; leave out /{split}")
        if target in given:
            raise SourceError(f"{spec!r}: the split is given twice; leave out {target}=")
        if target == "train" and split not in {"train", "test"}:
            hint = did_you_mean(split, ["train", "test"])
            raise SourceError(f"{spec!r}: {kind.__name__} has no split {split!r}: {hint}")
        given[target] = split == "train" if target == "train" else split
    required = [p.name for p in parameters.values() if p.default is p.empty]
    if missing := [each for each in required if each not in given]:
        raise SourceError(
            f"{spec!r}: {kind.__name__} needs {' and '.join(missing)}; write "
            f"{PREFIX}{kind.__name__}?{'&'.join(f'{each}=…' for each in missing)}"
        )
    return {**given, "download": False} if "download" in parameters else given


def _value(spec: str, parameter: inspect.Parameter, text: str) -> Any:
    """Read an option as what the constructor's annotation, else its default, says."""
    default = parameter.default
    wanted = parameter.annotation
    if wanted is parameter.empty:
        wanted = str if default in {parameter.empty, None} else type(default)
    if get_origin(wanted) in {Union, types.UnionType}:
        wanted = next((each for each in get_args(wanted) if each in {str, int, float, bool}), str)
    try:
        if get_origin(wanted) is tuple or wanted is tuple:
            item = next(iter(get_args(wanted)), str)
            return tuple(item(part) for part in text.split(","))
        if wanted is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if parameter.name == "root":
            return str(given_path(text))
        return wanted(text) if wanted in {int, float} else text
    except (ValueError, KeyError):
        kind = getattr(wanted, "__name__", str(wanted))
        raise SourceError(f"{spec!r}: {parameter.name} is of type {kind}, not {text!r}") from None


def _construct(spec: str, kind: type, arguments: dict[str, Any]) -> Any:
    try:
        return kind(**arguments)
    except ImportError as error:
        raise MissingExtraError(f"{spec!r} needs a package: {error}") from error
    except ValueError as error:
        raise SourceError(f"{spec!r}: {_first_line(error)}") from error
    # Each set looks for its files in its own way, and fails on damaged ones in as many.
    except Exception as error:
        root = arguments.get("root")
        where = f"not found or damaged under {root!r}" if root else "cannot be opened"
        raise SourceError(
            f"{spec!r}: {kind.__name__} is {where} ({_first_line(error)}); nothing is downloaded "
            f"here, fetch it first: torchvision.datasets.{kind.__name__}(…, download=True)"
        ) from error


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _readable_samples(dataset: Any, rows: list[int]) -> Iterator[tuple[int, Any]]:
    for row in rows:
        try:
            with decode_errors():
                sample = _sample(dataset, row)
        except DecodeError:
            continue
        yield row, sample


def _sample(dataset: Any, row: int) -> Any:
    """Return one row; masks, which sets open and nobody reads here, are closed."""
    sample = dataset[row]
    for target in sample[1:] if isinstance(sample, tuple) else ():
        if isinstance(target, Image.Image):
            target.close()
    return sample


def _is_image_and_target(sample: Any) -> bool:
    return isinstance(sample, tuple) and len(sample) == 2 and isinstance(sample[0], Image.Image)


def _is_index(target: Any) -> bool:
    try:
        operator.index(target)
    except TypeError:
        return False
    return not isinstance(target, bool)


def _labels(
    spec: str, dataset: Any, ends: dict[int, Any]
) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """Find the list of labels that agrees with the targets in ``ends``, else read every target."""
    if not all(_is_index(target) for target in ends.values()):
        return None, ("no labels: the targets of this set are not class indices",)
    labels = next(
        (
            each
            for each in _listed_labels(dataset)
            if all(each[row] == int(target) for row, target in ends.items())
        ),
        None,
    )
    if labels is None:
        try:
            labels = np.array([int(dataset[row][1]) for row in range(len(dataset))], dtype=np.int64)
        except Exception as error:
            raise SourceError(f"{spec!r}: the labels cannot be read: {error}") from error
    if unlabelled := int((labels < 0).sum()):
        return None, (f"no labels: {unlabelled} of {len(labels)} samples have none",)
    return labels, ()


def _listed_labels(dataset: Any) -> Iterator[NDArray[np.int64]]:
    lists = [getattr(dataset, name, None) for name in _LABELS]
    for name in _PAIRS:
        pairs = getattr(dataset, name, None)
        if isinstance(pairs, list) and all(isinstance(p, tuple) and len(p) == 2 for p in pairs):
            lists.append([label for _, label in pairs])
    for each in lists:
        try:
            array = np.asarray(each)
        except (ValueError, TypeError):  # ragged, or no array at all
            continue
        if array.shape == (len(dataset),) and array.dtype.kind in "iu":
            yield array.astype(np.int64)


def _classes(dataset: Any, labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Name the classes; where the set does not, they are its distinct numbers in order."""
    needed = int(labels.max()) + 1
    names = getattr(dataset, "classes", None)
    index = getattr(dataset, "class_to_idx", None)
    if not isinstance(names, list | tuple) and isinstance(index, dict):
        names = sorted(index, key=lambda name: index[name])
    if isinstance(names, list | tuple) and len(names) >= needed:
        return labels, tuple(", ".join(e) if isinstance(e, tuple) else str(e) for e in names)
    count = getattr(dataset, "num_classes", None)
    if isinstance(count, int) and count >= needed:
        return labels, tuple(str(number) for number in range(count))
    numbers, rows = np.unique(labels, return_inverse=True)
    return rows.astype(np.int64), tuple(str(number) for number in numbers)


def _files(dataset: Any) -> PackedStrings | None:
    """Return the image file of each row, where the set keeps such a list."""
    for name in _FILES:
        entries = getattr(dataset, name, None)
        if not isinstance(entries, list | tuple) or len(entries) != len(dataset):
            continue
        paths = [each[0] if isinstance(each, tuple) else each for each in entries]
        if all(isinstance(path, str | os.PathLike) for path in paths) and Path(paths[0]).is_file():
            return PackedStrings(str(Path(path).absolute()) for path in paths)
    return None
