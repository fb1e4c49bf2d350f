"""Write the tables of both README files and of ARCHITECTURE.md from ``results/*.json``."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from benchmarks.harness import RESULTS
from benchmarks.plan import measured, page

STUDIES = (
    "ensemble_knn_", "ensemble_transfer_", "ensemble_ablations_", "best_layer", "diversity",
    "evaluations", "concepts", "simclr_families", "treenet_study", "deepcluster_study",
)  # fmt: skip
"""Beginnings of the results that have no targets, a table each."""


FUZZ = "fuzz.json"
"""Rows of the table of faults alone: ``what``, ``how``, ``count``, ``outcome``."""


def results() -> list[Path]:
    """Return the files of all results that have claims."""
    return sorted(path for path in RESULTS.glob("*.json") if path.name != FUZZ)


def rows() -> str:
    """Return the claims of every result with targets as one Markdown table."""
    lines = [
        "| claim | measured | target | met | how large | command |",
        "|---|---|---|---|---|---|",
    ]
    for path in results():
        if path.name.startswith(STUDIES):
            continue
        result = json.loads(path.read_text())
        for claim in result["claims"]:
            met = {True: "yes", False: "**no**", None: "—"}[claim["met"]]
            cells = [claim["what"], claim["measured"], claim["target"], met, claim["sized"]]
            lines.append(f"| {' | '.join(cells)} | `{result['command']}` |")
    machines = {
        f"{m['cpu']}, {m['cores']} cores, {m['memory_gb']} GB, Python {m['python']}, "
        + ", ".join(f"{name} {version}" for name, version in m["versions"].items())
        for m in (json.loads(path.read_text())["machine"] for path in results())
    }
    return "\n".join(lines) + "\n\nMeasured on: " + "; ".join(sorted(machines)) + ".\n"


def studies() -> str:
    """Return the studies, a table each."""
    parts = []
    for path in sorted(results(), key=lambda path: path.stem):
        if not path.name.startswith(STUDIES):
            continue
        result = json.loads(path.read_text())
        lines = [f"`{result['command']}`", "", "| | measured | |", "|---|---|---|"]
        lines += [
            f"| {c['what']}{f': {held}' if (held := c.get('holds', '—')) != '—' else ''} "
            f"| {c['measured']} | {c['sized']} |"
            for c in result["claims"]
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def accuracies() -> str:
    """Return the table of the project's README."""
    result = json.loads((RESULTS / "cifar10.json").read_text())
    lines = ["| features | top-1 |", "|---|---|"]
    lines += [f"| {name} | {value:.2%} |" for name, value in result["accuracy"].items()]
    return "\n".join(lines) + f"\n\nMade by `{result['command']}`.\n"


def ensembles() -> str:
    """Return the table of ensembles of the project's README."""
    sets = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("ensemble_knn_*.json"))]
    presets = list(dict.fromkeys(fit["preset"] for found in sets for fit in found["fits"]))
    learned_by = " | ".join(f"ψ, {preset}" for preset in presets)
    lines = [
        f"| models | k | best of them | average | concat | {learned_by} |",
        f"|---|---|---|---|---|{'---|' * len(presets)}",
    ]
    for found in sets:
        models = ", ".join(model.partition("/")[0] for model in found["models"])
        for k in dict.fromkeys(row["k"] for row in found["fits"][0]["knn"]):
            rows = [row for row in found["fits"][0]["knn"] if row["k"] == k]
            top1 = {row["features"]: f"{row['top1']:.2%}" for row in rows}
            best = max(row["top1"] for row in rows if row["features"].startswith("individual:"))
            learned: dict[str, list[str]] = {preset: [] for preset in presets}
            for fit in found["fits"]:
                learned[fit["preset"]] += [
                    f"{row['top1']:.2%}"
                    for row in fit["knn"]
                    if row["k"] == k and row["features"] == "ensemble"
                ]
            cells = [models, str(k), f"{best:.2%}"]
            cells += [top1.get(how, "—") for how in ("average", "concat")]
            cells += [", ".join(values) or "—" for values in learned.values()]
            lines.append(f"| {' | '.join(cells)} |")
            models = ""
    commands = "; ".join(f"`{found['command']}`" for found in sets)
    return (
        "\n".join(lines)
        + f"\n\nMade by {commands}; intervals and paired tests: "
        + ("[`benchmarks/README.md`](benchmarks/README.md).\n")
    )


def most_diverse() -> str:
    """Return which layer of each family is the most diverse, and its pictures.

    Two layers within two standard deviations of their difference are not told apart. Of weights
    there are no draws, and the least energy is taken as it is.
    """
    result = json.loads((RESULTS / "diversity.json").read_text())
    families = ("CIFAR ResNets", "EfficientNet-Lites")
    lines = [
        f"| most diverse layer, over | pooling | s | {' | '.join(families)} |",
        f"|---|---|---|{'---|' * len(families)}",
    ]
    first = result[families[0]]["most_diverse"]
    for over, pooling, power in dict.fromkeys((r["over"], r["pooling"], r["power"]) for r in first):
        cells = []
        for family in families:
            rows = [
                "not told apart" if row["apart"] is False else row["layer"]
                for row in result[family]["most_diverse"]
                if (row["over"], row["pooling"], row["power"]) == (over, pooling, power)
            ]
            counts = Counter(rows).most_common()
            cells.append(", ".join(f"{layer} ({n} of {len(rows)})" for layer, n in counts))
        how = "—" if over == "weights" else pooling
        lines.append(f"| {over} | {how} | {power:g} | {' | '.join(cells)} |")
    pictures = " ".join(
        f"![{path.stem}](benchmarks/results/{path.name})"
        for path in sorted(RESULTS.glob("diversity_*.png"))
    )
    made = f"Made by `{result['command']}`, 500 of the 10,000 test images of CIFAR-10, ten times."
    return "\n".join(lines) + f"\n\n{pictures}\n\n{made}\n"


def evaluated() -> str:
    """Return every backbone by every evaluation, and how well what needs no labels ranks them."""
    result = json.loads((RESULTS / "evaluations.json").read_text())
    lines = [
        "| features | probe | 20 neighbours | 5-way 5-shot | effective rank | α | uniformity |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in result["spectrum"].items():
        few, rank = result["fewshot"][name], f"{row['effective_rank']:.0f} of {row['d']}"
        cells = [name, *(f"{result[kind][name]['top1']:.2%}" for kind in ("probe", "knn"))]
        cells += [f"{few['accuracy']:.2%} ± {few['ci95']:.2%}", rank]
        cells += [f"{row['alpha']:.2f}", f"{row['uniformity']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    ranked = [c for c in result["claims"] if c["what"].startswith("rank correlation")]
    lines += ["", "| without labels | against | rank correlation | |", "|---|---|---|---|"]
    for claim in ranked:
        measure, _, judged = claim["what"].removeprefix("rank correlation of ").partition(" with ")
        lines.append(f"| {measure} | {judged} | {claim['measured']} | {claim['sized']} |")
    return "\n".join(lines) + f"\n\nMade by `{result['command']}`, all of CIFAR-10.\n"


def concepts() -> str:
    """Return what the units of each model detect, and pictures."""
    result = json.loads((RESULTS / "concepts.json").read_text())
    lines = [
        "| model, tap | detectors of units, concepts; above chance | |",
        "|---|---|---|",
    ]
    others = []
    for claim in result["claims"]:
        what, _, _ = claim["what"].partition(", that detect a concept")
        if what == claim["what"]:
            others.append(f"- {what}: {claim['measured']} ({claim['sized']})")
            continue
        sized = claim["sized"].rpartition("; ")[0]
        lines.append(f"| {what.removeprefix('units of ')} | {claim['measured']} | {sized} |")
    pictures = " ".join(
        f"![{path.stem}](benchmarks/results/{path.name})"
        for path in sorted([*RESULTS.glob("concepts_*.jpg"), *RESULTS.glob("concepts_*.png")])
    )
    return "\n".join([*lines, "", *others, "", pictures, "", f"Made by `{result['command']}`.", ""])


_TOLD = (
    "the last layer is the most diverse: avg, s = 1",
    "the last layer is the most diverse: flatten, s = 1", "conv1 is more diverse than res2: avg",
    "error falls", "while the head", "diversity and accuracy part",
    "width raises diversity: res4, avg", "width raises diversity: head", "error with width",
    "LayerNorm", "deeper", "error does not always",
    "parameters raise diversity, stopped early: head",
    "no correlation of diversity and error between networks: head", "method: untrained",
    "method: SimCLR", "method: supervised, 20", "supervised training",
)  # fmt: skip
"""Beginnings of the claims of the families that the project's README repeats."""


def families() -> str:
    """Return what families of SimCLR networks say of the diversity paper's claims, and pictures."""
    result = json.loads((RESULTS / "simclr_families.json").read_text())
    told = [claim for claim in result["claims"] if claim["what"].startswith(_TOLD)]
    sized, _, _ = told[0]["sized"].partition(";")
    lines = ["| claim of the paper | holds | measured | |", "|---|---|---|---|"]
    for c in told:
        where = c["sized"].removeprefix(sized).removeprefix("; ")
        lines.append(f"| {c['what']} | {c['holds']} | {c['measured']} | {where} |")
    pictures = " ".join(
        f"![{path.stem}](benchmarks/results/{path.name})"
        for path in sorted(RESULTS.glob("simclr_families_*.png"))
    )
    made = f"{sized}, where no other size is given. Made by `{result['command']}`"
    lines += ["", pictures, "", f"{made}, in {result['minutes']:.0f} minutes.", ""]
    return "\n".join(lines)


def faults() -> str:
    """Return what was done to runs, how often, and what came of it."""
    told = json.loads((RESULTS / "reliability.json").read_text())
    fuzz = json.loads((RESULTS / FUZZ).read_text())
    rows = told["rows"] + fuzz["rows"]
    lines = ["| what | how it was tried | times | outcome |", "|---|---|---|---|"]
    lines += [f"| {r['what']} | {r['how']} | {r['count']:,} | {r['outcome']} |" for r in rows]
    made = f"Made by `{told['command']}` and, from the first parser on, `{fuzz['command']}`"
    return "\n".join(lines) + f"\n\n{made}, on two cores.\n"


def study(name: str) -> str:
    """Return what a study says, and its pictures."""
    result = json.loads((RESULTS / f"{name}.json").read_text())
    lines = ["| | holds | measured | |", "|---|---|---|---|"]
    lines += [
        f"| {c['what']} | {c['holds']} | {c['measured']} | {c['sized']} |" for c in result["claims"]
    ]
    pictures = " ".join(
        f"![{path.stem}](benchmarks/results/{path.name})"
        for path in sorted(RESULTS.glob(f"{name}_*.png"))
    )
    lines += ["", pictures, "", f"Made by `{result['command']}`.", ""]
    return "\n".join(lines)


def fuzzed() -> str:
    """Return what became of changed inputs and of damaged files, a table each."""
    result = json.loads((RESULTS / "fuzz.json").read_text())
    lines = [
        "| parser | inputs | past the first check | accepted, refused | findings | lines | most |",
        "|---|---|---|---|---|---|---|",
    ]
    flips = [
        "| file | copies | refused | same answer | other answer | crashes | verify finds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        if "lines" in row:
            cells = [row["what"], f"{row['count']:,}", f"{row['past_first_check']:.0%}"]
            cells += [f"{row['accepted']:,}, {row['refused']:,}", str(row["findings"])]
            cells += [f"{row['lines']} of {row['of_lines']}"]
            cells += [f"{row['slowest_seconds']:.1f} s, {row['most_megabytes']:.0f} MB"]
            lines.append(f"| {' | '.join(cells)} |")
        else:
            verified = "—" if row["verified"] is None else f"{row['verified']} of {row['count']}"
            cells = [row[name] for name in ("what", "count", "refused", "harmless", "silent")]
            flips.append(f"| {' | '.join(map(str, [*cells, row['crashes'], verified]))} |")
    made = f"Made by `{result['command']}`, in {result['minutes']:.0f} minutes; " + ", ".join(
        f"{name} {version}" for name, version in result["libraries"].items()
    )
    return "\n".join([*lines, "", *flips, "", f"{made}, HDF5 {result['hdf5']}.", ""])


def fill(file: Path, name: str, text: str) -> None:
    """Put a text between the two marks of its name."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, found, rest = file.read_text().partition(begin)
    if not found or end not in rest:
        raise SystemExit(f"{file}: no marks for {name}")
    file.write_text(before + begin + text + end + rest.partition(end)[2])


if __name__ == "__main__":
    fill(RESULTS.parent / "README.md", "table", rows())
    fill(RESULTS.parent / "README.md", "studies", studies())
    fill(RESULTS.parents[1] / "ARCHITECTURE.md", "plan", page(measured()))
    if (RESULTS / FUZZ).exists():
        fill(RESULTS.parent / "README.md", "fuzz", fuzzed())
    fill(RESULTS.parents[1] / "README.md", "cifar10", accuracies())
    fill(RESULTS.parents[1] / "README.md", "ensembles", ensembles())
    if (RESULTS / "diversity.json").exists():
        fill(RESULTS.parents[1] / "README.md", "diversity", most_diverse())
    fill(RESULTS.parents[1] / "README.md", "evaluations", evaluated())
    fill(RESULTS.parents[1] / "README.md", "concepts", concepts())
    fill(RESULTS.parents[1] / "README.md", "families", families())
    if (RESULTS / "reliability.json").exists():
        fill(RESULTS.parents[1] / "README.md", "faults", faults())
    if (RESULTS / "treenet_study.json").exists():
        fill(RESULTS.parents[1] / "README.md", "treenet", study("treenet_study"))
    if (RESULTS / "deepcluster_study.json").exists():
        fill(RESULTS.parents[1] / "README.md", "deepcluster", study("deepcluster_study"))
