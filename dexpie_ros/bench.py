"""`dexpie bench NAME`: runs one benchmark and ends with one line of JSON on stdout."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from dexpie_ros import config

BENCHMARKS = {
    "policy": ("dexpie_ros.training.benchmarks", "bench_policy"),
    "episodes": ("dexpie_ros.episodes.benchmarks", "bench_episodes"),
    "simulation": ("dexpie_ros.simulation.benchmarks", "bench_simulation"),
    "critic": ("dexpie_ros.critic.benchmarks", "bench_critic"),
    "web": ("dexpie_ros.web.benchmarks", "bench_web"),
    "graph": ("dexpie_ros.nodes.benchmarks", "bench_graph"),
    "faults": ("dexpie_ros.nodes.fault_benchmarks", "bench_faults"),
}
"""Name -> module and function; the function takes ``quick`` and gives figures by name."""


def add_parser(groups: Any) -> None:
    parser = groups.add_parser("bench", help="measure; ends with one line of JSON")
    parser.add_argument("name", choices=sorted(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="smaller, for a first look")
    parser.add_argument("--output", type=Path, default=Path("outputs/bench"))
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    module, function = BENCHMARKS[options.name]
    began = time.time()
    figures = getattr(importlib.import_module(module), function)(quick=options.quick)
    result = {"bench": options.name, "figures": figures}
    about = {
        **result,
        "quick": options.quick,
        "seconds": round(time.time() - began, 1),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "provenance": config.provenance(),
    }
    config.write_json(options.output / f"{options.name}.json", about)
    sys.stdout.flush()
    print(json.dumps(result))
    return 0
