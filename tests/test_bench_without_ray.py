"""`head`, `packing`, `step` and `decode` run where neither Ray nor DeepSpeed is installed."""

import subprocess
import sys
from pathlib import Path

import raymdm

PROGRAM = """
import sys
from dataclasses import replace
from pathlib import Path

for name in ("ray", "deepspeed"):
    sys.modules[name] = None

from typer.testing import CliRunner
from raymdm import bench, cli
from raymdm.benchmarks import decode, head, packing, step
from raymdm.benchmarks.request import Request

sizes = ["model.hidden_size=16", "model.layers=1", "model.heads=2"]
plan = head.Plan(rows=2, length=64, width=32, vocabulary_size=50_000, chunks=(4,), blocks=1)
print(len(head.measure_head(plan).ways), "ways of the head")
report = packing.bench(Request(None, sizes, Path(sys.argv[1]), blocks=1))
print(len(report.figures["ways"]), "ways of padding")
arguments = ["bench", "step", "--blocks", "1"]
done = CliRunner().invoke(cli.app, arguments + [word for size in sizes for word in ("--set", size)])
print("eager" in done.output, done.exit_code)
tiny = dict(shortest=1, longest=4, long_response=8, long_block=4, long_steps=2, long_prompts=1)
few = dict(prompts=2, response_length=4, steps=1, keys=1, lessons=1, loop_prompts=1, blocks=1)
found = decode.measure_decoding(decode.Plan(**tiny, **few), [], print)
print(len(found), "comparisons")
"""


def test_the_four_measurements_need_neither_ray_nor_deepspeed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(raymdm.__file__).parents[1],
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "4 ways of the head",
        "4 ways of padding",
        "True 0",
        "caches of a model that has learned a text",
        "3 comparisons",
    ]
