"""`dexpie bench NAME`: runs one benchmark and ends with one line of JSON on stdout."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import sys
import time
from pathlib import Path
from typing import Any

from dexpie_ros import config

BENCHMARKS = {
    "policy": ("dexpie_ros.training.benchmarks", "bench_policy"),
    "episodes": ("dexpie_ros.episodes.benchmarks", "bench_episodes"),
    "recorder": ("dexpie_ros.nodes.recorder_benchmarks", "bench_recorder"),
    "simulation": ("dexpie_ros.simulation.benchmarks", "bench_simulation"),
    "critic": ("dexpie_ros.critic.benchmarks", "bench_critic"),
    "web": ("dexpie_ros.web.benchmarks", "bench_web"),
    "graph": ("dexpie_ros.nodes.benchmarks", "bench_graph"),
    "transport": ("dexpie_ros.nodes.transport_benchmarks", "bench_transport"),
    "faults": ("dexpie_ros.nodes.fault_benchmarks", "bench_faults"),
}
"""Name -> module and function; the function takes ``quick``, ``seconds`` where it can last, ``only``
where a part can be chosen, and gives figures by name."""


def add_parser(groups: Any) -> None:
    parser = groups.add_parser("bench", help="measure; ends with one line of JSON")
    parser.add_argument("name", choices=sorted(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="smaller, for a first look")
    parser.add_argument("--seconds", type=float, help="how long the streams last (recorder)")
    parser.add_argument("--only", help="those whose name contains this (faults)")
    parser.add_argument("--output", type=Path, default=Path("outputs/bench"))
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    module, function = BENCHMARKS[options.name]
    began = time.time()
    measure = getattr(importlib.import_module(module), function)
    known, more = inspect.signature(measure).parameters, {}
    if options.seconds is not None:
        if "seconds" not in known or not options.seconds > 0:
            raise config.ConfigError(
                f"--seconds {options.seconds:g}: a time above 0, for a benchmark that has one (recorder)"
            )
        more["seconds"] = options.seconds
    if options.only is not None:
        if "only" not in known:
            raise config.ConfigError(
                f"--only {options.only}: {options.name} has no choice (faults)"
            )
        more["only"] = options.only
    figures = measure(quick=options.quick, **more)
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
