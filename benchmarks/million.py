"""A million rows through every step, each in a process of its own whose memory is bounded.

The bound is the kernel's (a control group): what the process has touched, and pages of files, which
the kernel drops when they are in the way. Both are told apart. No step finds pages of the stores in
memory: they would count for who has read them first. Each step is kept when it is
done; the same command goes on with the next. The result tells of those that are done.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.capped import Ended, run_capped
from benchmarks.harness import command_line, save

HERE = Path(__file__).resolve().parents[1]
ALLOCATE = "import sys; held = bytearray(b'1') * int(float(sys.argv[1])); print(len(held))"
READ = """
import sys
import numpy as np
rows = np.memmap(sys.argv[1], np.uint8, "r")
print(len(rows), sum(int(rows[i : i + 2**24 : 4096].sum()) for i in range(0, len(rows), 2**24)))
"""
CHANGE = """
import sys
import numpy as np
rows = np.memmap(sys.argv[1], np.uint8, "c")
rows[::4096] = 1
print(len(rows))
"""


class Million:
    """The steps, in order; each returns what it answered and whether that is right.

    Args:
        given: Options of the command.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.work = given, given.work
        self.rows, self.cap = given.rows, int(given.cap * 1e9)
        self.stores = {name: self.work / name for name in ("train", "test", "few")}
        self.counts = {
            "train": self.rows,
            "test": max(100, self.rows // 100),
            "few": max(100, self.rows // 1000),
        }
        self.steps: dict[str, Callable[[], dict[str, Any]]] = {
            "control": self.control,
            "write": self.write,
            "verify": self.verify,
            "knn": self.knn,
            "approximate knn": self.approximate_knn,
            "energy": self.energy,
            "sampled energy": self.sampled_energy,
            "probe": self.probe,
            "ensemble": self.ensemble,
        }

    def run(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Run the steps that are not done yet, and return all that are."""
        folder = self.work / "steps"
        folder.mkdir(parents=True, exist_ok=True)
        done = {}
        for name, step in self.steps.items():
            kept = folder / f"{name.replace(' ', '_')}.json"
            if name in names and not kept.exists():
                print(f"{name} …", file=sys.stderr, flush=True)
                started = time.perf_counter()
                found = step() | {"seconds_with_checks": time.perf_counter() - started}
                kept.write_text(json.dumps(found, indent=1) + "\n")
            if kept.exists():
                done[name] = json.loads(kept.read_text())
                print(f"{name}: {json.dumps(done[name])}", file=sys.stderr, flush=True)
        return done

    def control(self) -> dict[str, Any]:
        """A tenth more than the bound must die, three quarters live, a file that is read too."""
        mapped = self.work / "mapped"
        mapped.parent.mkdir(parents=True, exist_ok=True)
        with mapped.open("wb") as file:
            file.truncate(int(1.1 * self.cap))
        python = partial(run_capped, cap=self.cap)
        ends = {
            "holds 1.1 × the cap": python([sys.executable, "-c", ALLOCATE, str(1.1 * self.cap)]),
            "holds 0.75 × the cap": python([sys.executable, "-c", ALLOCATE, str(0.75 * self.cap)]),
            "reads a mapped file of 1.1 × the cap": python(
                [sys.executable, "-c", READ, str(mapped)]
            ),
            "changes every page of it, privately": python(
                [sys.executable, "-c", CHANGE, str(mapped)]
            ),
        }
        mapped.unlink()
        return {
            "answer": {what: ended.told() for what, ended in ends.items()},
            "right": [ended.status for ended in ends.values()] == [-9, 0, 0, -9],
        }

    def write(self) -> dict[str, Any]:
        """Write the three stores by the store's own writer, and finish them."""
        for store in self.stores.values():
            shutil.rmtree(store, ignore_errors=True)
        told, seconds = {}, 0.0
        for name, store in self.stores.items():
            ended = self._module("benchmarks.million_rows", store, self.counts[name], name)
            told[name] = ended.told()
            seconds += ended.seconds
        size = sum(file.stat().st_size for file in self.stores["train"].rglob("*.h5"))
        return told["train"] | {
            "answer": {"bytes": size, "bytes_per_second": size / told["train"]["seconds"]},
            "right": not list(self.stores["train"].glob(".partial/*")),
        }

    def verify(self) -> dict[str, Any]:
        """Hash every byte again; and one byte that is turned must be found."""
        ended = self._featkit("verify", self.stores["train"])
        hurt = self.work / "hurt"
        shutil.rmtree(hurt, ignore_errors=True)
        shutil.copytree(self.stores["few"], hurt)
        table = next(hurt.glob("*/*.h5"))
        content = bytearray(table.read_bytes())
        content[len(content) // 2] ^= 1
        table.write_bytes(content)
        seen = subprocess.run(
            [sys.executable, "-m", "featkit_cli", "verify", hurt], capture_output=True, check=False
        )
        shutil.rmtree(hurt)
        sealed = sum(
            hashlib.sha256(file.read_bytes()[512:]).hexdigest()
            in file.open("rb").read(512).decode()
            for file in self.stores["test"].rglob("*.h5")
        )
        size = sum(file.stat().st_size for file in self.stores["train"].rglob("*.h5"))
        return ended.told() | {
            "answer": {"bytes_per_second": size / ended.seconds},
            "right": (ended.status, seen.returncode, sealed) == (0, 1, 3),
        }

    def knn(self) -> dict[str, Any]:
        """Exact neighbours of the test images; those of the few also by float64, without faiss."""
        found = self.work / "knn"
        ended = self._featkit(
            "knn", self._table("train", "one"), self._table("test", "one"), "-o", found
        )
        again = self._featkit(
            "knn", self._table("train", "one"), self._table("few", "one"), "-o", self.work / "few20"
        )
        checked = self._check("neighbors")
        top1 = self._result(self.work / "few20", "accuracy")[0]["top1"]
        flops = 2 * self.rows * self.counts["test"] * self.given.width
        return ended.told() | {
            "answer": {
                "top1": self._result(found, "accuracy")[0]["top1"],
                "gflops": flops / ended.seconds / 1e9,
                "few": again.told() | {"top1": top1},
            },
            "check": checked,
            "right": abs(top1 - checked["top1"]) < 1e-12,
        }

    def approximate_knn(self) -> dict[str, Any]:
        """Most of the neighbours, by inverted lists; held to the exact ones.

        First the index is made and kept, then the same command finds it in the store.
        """
        found = self.work / "approximate"
        shutil.rmtree(self.stores["train"] / ".index", ignore_errors=True)
        ended, again = (
            self._featkit(
                "knn", self._table("train", "one"), self._table("test", "one"),
                "--approximate", "ivf", "-o", found,
            )
            for _ in range(2)
        )  # fmt: skip
        top1, exact = (
            self._result(folder, "accuracy")[0]["top1"] for folder in (found, self.work / "knn")
        )
        (row,) = self._result(found, "recall")
        return ended.told() | {
            "answer": {
                "top1": top1,
                "exact": exact,
                "recall": row["recall"],
                "kept_index": again.told(),
            },
            "right": row["recall"] > 0.9 and abs(top1 - exact) < 0.02,
        }

    def energy(self) -> dict[str, Any]:
        """The exact energy of a tenth of the rows, by the command."""
        found, few = self.work / "diversity", self.rows // 10
        ended = self._featkit(
            "diversity", self._table("train", "one"), "--samples", few, "--repeats", 1,
            "--over", "samples", "--no-probe", "-o", found,
        )  # fmt: skip
        (row,) = self._result(found, "energy")
        checked = self._check("pairs", few)
        return ended.told() | {
            "answer": {
                "rows": row["n"],
                "mean_energy": row["mean_energy"],
                "gflops": few**2 * self.given.width / ended.seconds / 1e9,
            },
            "check": checked,
            "right": abs(row["mean_energy"] - checked["mean"]) < 4 * checked["error"],
        }

    def sampled_energy(self) -> dict[str, Any]:
        """The energy of all rows by sampling, against pairs that were drawn one by one."""
        ended = self._module("benchmarks.million_checks", "sampled", self.stores["train"], 0)
        answer, checked = json.loads(ended.output.splitlines()[-1]), self._check("pairs", 0)
        apart = abs(answer["mean"] - checked["mean"])
        return ended.told() | {
            "answer": answer,
            "check": checked,
            "right": apart < 4 * (answer["error"] ** 2 + checked["error"] ** 2) ** 0.5,
        }

    def probe(self) -> dict[str, Any]:
        """The linear probe on all rows, against scikit-learn on some of them."""
        found = self.work / "probe"
        ended = self._featkit(
            "probe", self._table("train", "one"), self._table("test", "one"),
            "--max-memory", self.given.cap / 2, "-o", found,
        )  # fmt: skip
        (row,) = self._result(found, "accuracy")
        checked = self._check("logistic", row["lambda"])
        kept = ("lambda", "top1", "low", "high", "validation", "n_train")
        return ended.told() | {
            "answer": {name: row[name] for name in kept},
            "check": checked,
            "right": row["low"] - 0.01 < checked["top1"] < row["high"] + 0.001,
        }

    def ensemble(self) -> dict[str, Any]:
        """Two epochs of an ensemble of both tables, its representation in mapped files.

        Images that either model lacks take no part, so that a model's neighbours are nearly those
        of the step before.
        """
        found, epochs = self.work / "ensemble", 2
        shutil.rmtree(found, ignore_errors=True)
        ended = self._featkit(
            "ensemble-fit", self.stores["train"], "--test", self.stores["few"], "-o", found,
            "--name", "million", "--epochs", epochs, "--k", "20",
            "--max-memory", self.given.cap / 4, "--overwrite", "--quiet",
        )  # fmt: skip
        recovered = self._result(found, "recovery")
        neighbors = {row["features"]: row["top1"] for row in self._result(found, "knn")}
        few = self._result(self.work / "few20", "accuracy")[0]["top1"]
        better = all(row["final"] > max(0.5, row["after_warmup"]) for row in recovered)
        alone = neighbors["individual:one/features"]
        return ended.told() | {
            "answer": {"epochs": epochs, "recovery": recovered, "top1": neighbors},
            "right": better and abs(alone - few) < 0.02 and neighbors["ensemble"] > alone - 0.02,
        }

    def _table(self, store: str, backbone: str) -> str:
        return f"{self.stores[store]}:{backbone}"

    def _featkit(self, *arguments: Any) -> Ended:
        return self._run([sys.executable, "-m", "featkit_cli", *map(str, arguments)])

    def _module(self, name: str, *arguments: Any) -> Ended:
        width = str(self.given.width)
        return self._run([sys.executable, "-m", name, width, *map(str, arguments)])

    def _run(self, command: Sequence[str]) -> Ended:
        os.sync()
        for file in (path for store in self.stores.values() for path in store.rglob("*.h5")):
            with file.open("rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        ended = run_capped(command, cap=self.cap, folder=HERE)
        if ended.status:
            raise SystemExit(f"{' '.join(command)}\nended with {ended.status}:\n{ended.error}")
        return ended

    def _check(self, kind: str, *arguments: Any) -> dict[str, Any]:
        """Return what something else than featkit says, without a bound on memory."""
        command = [sys.executable, "-m", "benchmarks.million_checks", str(self.given.width), kind]
        command += [str(self.stores["train"]), *map(str, arguments or (0,))]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def _result(self, folder: Path, table: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads((folder / "result.json").read_text())["tables"][
            table
        ]
        return rows


def claim(name: str, found: dict[str, Any], million: Million) -> dict[str, Any]:
    """Return the row of the table about one step."""
    bound = f"{million.cap / 1e9:g} GB"
    met = bool(found["right"])
    what = f"{name}, {million.rows:,} rows under {bound}"
    if name == "control":
        return {
            "what": f"memory is bounded at {bound}, pages of files are dropped",
            "measured": "holds" if met else "does not hold",
            "target": "more dies",
            "met": met,
            "sized": "; ".join(
                f"{what}: {'dies' if one['status'] else 'lives'}"
                for what, one in found["answer"].items()
            ),
        }
    return {
        "what": what,
        "measured": f"{found['seconds']:.0f} s; private {found['anonymous'] / 1e9:.2f} GB, "
        f"files {found['cached'] / 1e9:.2f}, {found['mapped'] / 1e9:.2f} of it mapped",
        "target": f"≤ {bound}, and right",
        "met": met,
        "sized": _short(name, found["answer"]),
    }


def not_run(name: str, million: Million) -> dict[str, Any]:
    """Return the row of a step that has not been run to its end."""
    what = f"{name}, {million.rows:,} rows under {million.cap / 1e9:g} GB"
    return {"what": what, "measured": "not run", "target": "—", "met": None, "sized": "—"}


def _short(name: str, answer: dict[str, Any]) -> str:
    """Return what a step answered, in a few words."""
    told = {
        "write": "two tables, {bytes_per_second:.3g} bytes/s",
        "verify": "two tables, {bytes_per_second:.3g} bytes/s",
        "knn": "exact, k = 20, top-1 {top1:.2%}, {gflops:.0f} GFLOP/s",
        "approximate knn": "ivf, its index made ({kept_index[seconds]:.0f} s once it is there), "
        "recall {recall:.1%}, top-1 {top1:.2%}",
        "energy": "exact on {rows:,}, mean {mean_energy:.6f}",
        "sampled energy": "{pairs:,} pairs, mean {mean:.6f} ± {error:.1e}",
        "probe": "45 penalties, λ = {lambda:.2g}, top-1 {top1:.2%}",
        "ensemble": "{epochs} epochs only, cosines {cosines}",
    }
    cosines = ", ".join(f"{row['final']:.3f}" for row in answer.get("recovery", ()))
    return told[name].format(**answer, cosines=cosines)


def main() -> None:
    """Run what is not done yet, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, metavar="WORK", help="25 GB are needed there")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--cap", type=float, default=2.0, help="GB of memory a process")
    parser.add_argument("--steps", default="", help="only these, separated by commas")
    given = parser.parse_args()
    given.work = given.work.resolve()
    million = Million(given)
    wanted = given.steps.split(",") if given.steps else list(million.steps)
    done = million.run(wanted)
    claims = [claim(name, found, million) for name, found in done.items()]
    claims += [not_run(name, million) for name in million.steps if name not in done]
    threads = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))
    given.steps = ""  # those of several calls are in one result
    sizes = {"rows": million.rows, "width": given.width, "cap_bytes": million.cap}
    save("million", command_line(parser, given), claims, **sizes, threads=threads, steps=done)


if __name__ == "__main__":
    main()
