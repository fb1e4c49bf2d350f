"""Open a training checkpoint of a ResNet-50: time, and memory beside its size."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import command_line, interleaved, median_ratio, save

MAKE = """
import sys, torch, torchvision
torch.manual_seed(0)
net = torchvision.models.resnet50()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
if sys.argv[2] == "training":
    net(torch.randn(2, 3, 64, 64)).sum().backward()
    optimizer.step()
state = {f"module.encoder_q.{name}": t for name, t in net.state_dict().items()}
torch.save({"epoch": 200, "state_dict": state, "optimizer": optimizer.state_dict()}, sys.argv[1])
"""

OPEN = {
    "featkit": """
from featkit.backbones.resolve import load_backbone
def load(path): return load_backbone(path).module
""",
    "torch.load": """
import torch, torchvision
def load(path):
    content = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    module = torchvision.models.resnet50()
    prefix = "module.encoder_q."
    module.load_state_dict({name.removeprefix(prefix): t for name, t in content.items()})
    return module.eval()
""",
}

MEASURE = """
import json, resource, sys, time
import torch, torchvision
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, start = peak(), time.perf_counter()
module = load(sys.argv[1])
seconds = time.perf_counter() - start
total = float(sum(t.double().sum() for t in module.state_dict().values()))
print(json.dumps({"seconds": seconds, "bytes": peak() - before, "total": total}))
"""


def run(name: str, path: Path, cache: str) -> dict[str, float]:
    """Open the file in a process of its own and return what it took."""
    ended = subprocess.run(
        [sys.executable, "-c", OPEN[name] + MEASURE, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "FEATKIT_CACHE": cache},
    )
    facts: dict[str, float] = json.loads(ended.stdout)
    return facts


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("weights", "training"):
            path = Path(folder) / f"{kind}.pth"
            subprocess.run([sys.executable, "-c", MAKE, str(path), kind], check=True)
            seen: dict[str, list[dict[str, float]]] = {name: [] for name in OPEN}

            def measure(name: str, path: Path = path, seen: dict = seen) -> float:  # type: ignore[type-arg]
                with tempfile.TemporaryDirectory() as cache:
                    seen[name].append(run(name, path, cache))
                return seen[name][-1]["seconds"]

            times = interleaved({n: (lambda n=n: measure(n)) for n in OPEN}, given.repeats)
            assert len({facts["total"] for all_ in seen.values() for facts in all_}) == 1
            seconds = sorted(times["featkit"])[given.repeats // 2]
            size = path.stat().st_size
            peak = max(facts["bytes"] for facts in seen["featkit"]) / size
            theirs = max(facts["bytes"] for facts in seen["torch.load"]) / size
            ratio = median_ratio(times["torch.load"], times["featkit"])
            sized = f"ResNet-50, {kind}, {size / 1e6:.0f} MB, digest computed"
            rows += [
                {
                    "what": f"time to open a {size / 1e6:.0f}-MB checkpoint ({kind})",
                    "measured": f"{seconds:.2f} s ({ratio:.2f} × torch.load and load_state_dict)",
                    "target": "< 2 s",
                    "met": seconds < 2,
                    "sized": sized,
                },
                {
                    "what": f"peak memory beside the size of the file ({kind})",
                    "measured": f"{peak:.2f} × ({theirs:.2f} × with torch.load)",
                    "target": "< 2 ×",
                    "met": peak < 2,
                    "sized": sized,
                },
            ]
    save("checkpoints", command_line(parser, given), rows)


if __name__ == "__main__":
    main()
