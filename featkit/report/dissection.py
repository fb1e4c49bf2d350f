"""A page to look through: what each unit detects, and the images that excite it most."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featkit.analyses.base import Result
from featkit.analyses.dissect.gallery import Gallery
from featkit.errors import UsageError
from featkit.store.files import explain_full_disk, make_folder, write_whole

OUTLINE = (255, 230, 0)
FADED = 0.6  # brightness outside of the active region
GAP = 4  # pixels between images
PAGE = "index.html"
PICTURES = "units"  # folder of them
PICTURE = "unit-[0-9][0-9][0-9][0-9][0-9].jpg"

Pixels = NDArray[np.uint8]

_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1080px;padding:0 1em;color:#222}
h1{font-size:1.4em}h2{font-size:1.15em;margin:1.6em 0 .4em;border-bottom:1px solid #ddd}
h3{font-size:1em;margin:1em 0 .2em}table{border-collapse:collapse}
td,th{padding:.15em .8em .15em 0;text-align:right}td:first-child,th:first-child{text-align:left}
.unit{display:inline-block;margin:0 1.2em .9em 0;vertical-align:top}.unit img{display:block}
.unit p,.dim{margin:0;color:#666;font-size:.9em}.chance{opacity:.55}summary{cursor:pointer}
nav a{margin-right:1em}
"""


def write_page(result: Result, gallery: Gallery, folder: str | Path) -> Path:
    """Write ``index.html`` and a picture of each unit's images.

    Args:
        result: Of a dissection, saved in the folder with its figures.
        gallery: Of the same dissection.
        folder: Where it is saved. Pictures that an earlier page had of its units are removed.

    Returns:
        The page.

    Raises:
        DiskFullError: The disk is full; there is no page.
        UsageError: The folder cannot be written to.
    """
    folder = Path(folder)
    pictures, page = folder / PICTURES, folder / PAGE
    try:
        with explain_full_disk("the page", folder):
            page.unlink(missing_ok=True)  # one that is interrupted leaves none
            make_folder(pictures)
            for old in pictures.glob(PICTURE):
                old.unlink()
            for unit in range(len(gallery.rows)):
                strip = draw_strip(gallery, unit)
                if strip is not None:
                    encoded = (
                        io.BytesIO()
                    )  # Pillow writes half a file to a full disk, and is silent
                    Image.fromarray(strip).save(encoded, "JPEG", quality=82)
                    write_whole(pictures / picture_name(unit), encoded.getvalue())
            write_whole(page, "".join(_page(result, gallery)).encode())
    except OSError as error:
        raise UsageError(
            f"cannot write the page to {folder} ({error.strerror}): give another folder"
        ) from error
    return page


def picture_name(unit: int) -> str:
    """Return the file of a unit's images.

    Example:
        >>> picture_name(7)
        'unit-00007.jpg'
    """
    return f"unit-{unit:05d}.jpg"


def draw_strip(gallery: Gallery, unit: int) -> Pixels | None:
    """Return a unit's top images side by side, (h, w, 3), its active region outlined in each.

    None where it has none.
    """
    shown = [
        outlined(gallery.image(row), gallery.region(unit, rank))
        for rank, row in enumerate(gallery.rows[unit].tolist())
        if row in gallery.images
    ]
    if not shown:
        return None
    height, width = shown[0].shape[:2]
    strip = np.full((height, len(shown) * (width + GAP) - GAP, 3), 255, np.uint8)
    for place, image in enumerate(shown):
        left = place * (width + GAP)
        strip[:, left : left + width] = image
    return strip


def outlined(image: Pixels, region: NDArray[np.bool_]) -> Pixels:
    """Return an image (h, w, 3) with a region (rows, columns) outlined and all else darker.

    Example:
        >>> image = np.full((4, 6, 3), 100, np.uint8)
        >>> outlined(image, np.array([[False, True]]))[0, :, 0].tolist()
        [60, 60, 60, 255, 255, 255]
    """
    height, width = image.shape[:2]
    grown = Image.fromarray(region).resize((width, height), Image.Resampling.NEAREST)
    mask = np.asarray(grown, dtype=bool)
    inner = np.pad(mask, 2)
    # a pixel is inside where all pixels up to two away along an axis are
    shifts = [inner[2 + i : 2 + i + height, 2:-2] for i in (-2, -1, 1, 2)]
    shifts += [inner[2:-2, 2 + i : 2 + i + width] for i in (-2, -1, 1, 2)]
    edge = mask & ~np.logical_and.reduce(shifts)
    drawn = np.where(mask[..., None], image, image * FADED).astype(np.uint8)
    drawn[edge] = OUTLINE
    return drawn


def _page(result: Result, gallery: Gallery) -> Iterator[str]:
    config, backbone = result.config, result.provenance["backbone"]
    name = html.escape(f"{backbone['name']}, {config['tap']}")
    yield f"<!doctype html><html lang=en><meta charset=utf-8><title>{name}</title>"
    yield f"<style>{_STYLE}</style><h1>{name}</h1>"
    yield f"<p>{_told(result)}</p>"
    yield "".join(f"<p class=dim>{html.escape(text)}</p>" for text in result.notes)
    yield _table(result.tables["categories"])
    for figure in result.figures:
        yield f"<p><img src='{figure.name}.png' alt='{html.escape(figure.title)}' width=640></p>"
    detectors = [row for row in result.tables["units"] if row["detector"]]
    groups: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in sorted(detectors, key=lambda row: -row["iou"]):
        groups.setdefault(row["category"], {}).setdefault(row["concept"], []).append(row)
    if groups:
        links = "".join(f"<a href='#{html.escape(c)}'>{html.escape(c)}</a>" for c in groups)
        yield f"<nav>{links}</nav>"
    for category, concepts in groups.items():
        yield f"<h2 id='{html.escape(category)}'>{html.escape(category)}</h2>"
        for concept, rows in sorted(concepts.items(), key=lambda item: -len(item[1])):
            many = "unit" if len(rows) == 1 else "units"
            yield f"<h3>{html.escape(concept)} <span class=dim>{len(rows)} {many}</span></h3>"
            yield from (_card(row, gallery) for row in rows)
    rest = [row for row in result.tables["units"] if not row["detector"]]
    yield f"<h2>no concept</h2><details><summary>{len(rest)} units</summary>"
    yield from (_card(row, gallery) for row in sorted(rest, key=lambda row: -row["iou"]))
    yield "</details></html>\n"


def _told(result: Result) -> str:
    config, scalars = result.config, result.scalars
    text = (
        f"{scalars['detectors']} of {scalars['units']} units detect {scalars['unique_concepts']}"
        f" concept{'s'[: scalars['unique_concepts'] != 1]} with IoU above {config['min_iou']:g},"
        f" over {scalars['images']} images ({config['variant']}; concepts:"
        f" {', '.join(config['concepts'])})."
    )
    if "chance_iou" in scalars:
        spread = ""
        if "chance_iou_least" in scalars:
            spread = (
                f" ({scalars['chance_iou_least']:.3f} to {scalars['chance_iou_largest']:.3f} by"
                " network)"
            )
        text += (
            f" 95 % of the units of {config['chance']} random network{'s'[: config['chance'] > 1]}"
            f" stay below {scalars['chance_iou']:.3f}{spread}. Pale units are not above the chance"
            " IoU of their category, in the table."
        )
    if config.get("draws"):
        text += (
            " A unit's share of draws is that of bootstrap samples of the images in which it keeps"
            " its label; levels stay as they are."
        )
    text += " " + _seen(result.provenance["preprocessing"])
    return html.escape(text)


def _seen(recipe: Mapping[str, Any]) -> str:
    """Say what the network, and thus the dissection, sees of an image."""
    height, width = recipe["size"]
    resize = recipe["resize"]
    if resize is None:
        text = f"The central {width} × {height} pixels of each image are looked at."
    elif isinstance(resize, int):
        text = (
            f"Images are resized to a shorter side of {resize} pixels, of which the central"
            f" {width} × {height} are looked at."
        )
    else:
        text = (
            f"Images are resized to {resize[1]} × {resize[0]} pixels, of which the central"
            f" {width} × {height} are looked at."
        )
    return text


def _card(row: Mapping[str, Any], gallery: Gallery) -> str:
    pale = "" if row.get("above_category", True) else " chance"
    sure = f", {row['confidence']:.0%} of draws" if row.get("confidence") is not None else ""
    label = f"{row['concept']} ({row['category']}), " if row["concept"] else ""
    text = f"unit {row['unit']}: {label}IoU {row['iou']:.3f}{sure}, active {row['active']:.2%}"
    if not row["active"]:
        text = f"unit {row['unit']}: active nowhere"
    names = [gallery.names[r] for r in gallery.rows[row["unit"]].tolist() if r in gallery.names]
    told = html.escape(", ".join(names), quote=True)
    source = f"{PICTURES}/{picture_name(row['unit'])}"
    image = ""
    if names:
        image = f"<img loading=lazy src='{source}' title='{told}' alt='{told}'>"
    return f"<div class='unit{pale}'>{image}<p>{html.escape(text)}</p></div>"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_value(v))}</td>" for v in row.values()) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _value(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
