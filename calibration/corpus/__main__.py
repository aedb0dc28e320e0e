"""Measure the pairs of a zoo: `python -m calibration.corpus ZOO`, in as many processes as there are cores."""

import json
import time
from collections import Counter
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import click
import torch
from filelock import FileLock, Timeout

from calibration.corpus.measuring import (
    expected_scores,
    measure_arm,
    measure_layers,
    measure_probes,
    measure_warmup,
)
from calibration.corpus.records import SMALL_POLICIES, Pair, load_pair, package_versions, save_pair
from calibration.corpus.sets import measure_sets
from calibration.protocol import Protocol, split_task
from calibration.race import EXPECTED
from calibration.zoo.pretraining import load_member
from calibration.zoo.skills import rl_rows
from probes.tasks.rewards import exact
from probes.tasks.task import Task, split_rows
from probes.training import TrainingConfig

PROTOCOL = Protocol(
    TrainingConfig(steps=32, prompts_per_step=16, group_size=8, max_new_tokens=12),
    learning_rates=(1e-4, 3e-4, 1e-3),
    seeds=2,
    held_out=1024,
    validation=256,
    sampled_completions=2,
)
HELD_OUT_SHARE = 0.4
HEADROOM = 0.1  # of greedy score that full-parameter training gains on validation prompts, or there is no sweep
_GUESSED = 0.2  # most that the commonest answer may score
_LOW, _HIGH, _BEST = 0.1, 0.75, 0.4  # greedy score, above guessing, of a policy on a task it was not kept for

Wanted = tuple[Path, str]  # snapshot, task


@click.command()
@click.argument("zoo", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--to", "folder", type=click.Path(path_type=Path), default=SMALL_POLICIES, help="[default: the package]")
@click.option("--tasks", default=2, show_default=True, help="Most tasks of one snapshot.")
@click.option("--sets", default=0, show_default=True, help="Then measure sets of layers on so many pairs.")
@click.option("--threads", default=1, show_default=True)
def main(zoo: Path, folder: Path, tasks: int, sets: int, threads: int) -> None:
    """Measure every pair of the policies in ZOO that is not in the corpus yet, each kept when it is done.

    Several processes share the work: a pair that another one is at is left to it.
    """
    torch.set_num_threads(threads)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = wanted_pairs(zoo, tasks)
    for i, (snapshot, task) in enumerate(wanted, start=1):
        name, start = pair_name(snapshot, task), time.perf_counter()
        lock = FileLock(zoo / f".{name}.lock")
        try:
            with lock.acquire(blocking=False):
                if (folder / f"{name}.jsonl.gz").exists():
                    continue
                pair = measure_pair(snapshot, task)
                save_pair(pair, folder)
        except Timeout:
            continue
        what = "measured" if pair.is_whole else "no headroom"
        click.echo(f"{i} of {len(wanted)} {name}: {what}, {time.perf_counter() - start:.0f} s")
    for snapshot, name in wanted_sets(wanted, folder, sets):
        with FileLock(zoo / f".{name}.lock"):
            pair, start = load_pair(folder / f"{name}.jsonl.gz"), time.perf_counter()
            if not pair.layer_set_runs:
                save_pair(add_sets(pair, snapshot), folder)
                click.echo(f"{name}: sets of layers, {time.perf_counter() - start:.0f} s")


def wanted_pairs(zoo: Path, tasks: int) -> list[Wanted]:
    """Snapshots with tasks: each with the task it was kept for, and with others that it is about half able to do.

    Members take turns, each with the task that was taken least so far; another task of a snapshot comes after every two
    snapshots. A skill that one answer does well on is left out: RL only makes the policy surer of that answer.
    """
    queues: list[list[tuple[Wanted, list[Wanted]]]] = []
    for member in sorted({file.parents[1] for file in zoo.glob("*/*/made.json")}):
        queue = []
        for file in sorted(member.glob("*/made.json")):
            made = json.loads(file.read_text(encoding="utf-8"))
            open_to = {s: right for s, right in made["greedy"].items() if guessed(s) <= _GUESSED}
            able = {s: right for s, right in open_to.items() if _LOW + guessed(s) <= right <= _HIGH}
            possible = sorted(able.keys() - {made["skill"]}, key=lambda skill: (abs(able[skill] - _BEST), skill))
            if made["skill"] in open_to:
                queue.append(((file.parent, made["skill"]), [(file.parent, s) for s in possible[: tasks - 1]]))
        queues.append(queue)
    found: list[Wanted] = []
    taken: Counter[str] = Counter()
    late: list[list[Wanted]] = [[] for _ in queues]
    turn = 0
    while any(queues) or any(late):
        turn += 1
        for queue, others in zip(queues, late, strict=True):
            if queue and (turn % 3 or not others):
                chosen = min(queue, key=lambda entry: (taken[entry[0][1]], entry[0][1]))
                queue.remove(chosen)
                others += chosen[1]
                found.append(chosen[0])
            elif others:
                found.append(others.pop(0))
            else:
                continue
            taken[found[-1][1]] += 1
    return found


def wanted_sets(wanted: list[Wanted], folder: Path, most: int) -> list[tuple[Path, str]]:
    """Snapshots and names of the pairs on which sets are measured: the first whole ones, a policy each."""
    found: dict[str, tuple[Path, str]] = {}
    for snapshot, task in wanted:
        name = pair_name(snapshot, task)
        if (folder / f"{name}.jsonl.gz").exists() and load_pair(folder / f"{name}.jsonl.gz").is_whole:
            found.setdefault(snapshot.parent.name, (snapshot, name))
    return list(found.values())[:most]


def add_sets(pair: Pair, snapshot: Path) -> Pair:
    """The pair with runs of several layers at once."""
    policy, task = load_member(snapshot), make_task(pair.task)
    runs = {run.key: record for run, record in measure_sets(pair, policy, task, split_task(task, PROTOCOL))}
    return replace(pair, runs={**pair.runs, **runs})


def make_task(skill: str) -> Task:
    """The prompts of a skill as a task of RL."""
    train, held_out = split_rows(rl_rows(skill), HELD_OUT_SHARE)
    return Task(skill, train, held_out, exact, "exact", 1.0)


@cache
def guessed(skill: str) -> float:
    """Score of giving the commonest answer to every prompt."""
    answers = Counter(row["answer"] for row in rl_rows(skill))
    return answers.most_common(1)[0][1] / answers.total()


def pair_name(snapshot: Path, task: str) -> str:
    """ "llama-8x64-seed0.sort.add": the member, the skill its snapshot was kept for, the task."""
    return f"{snapshot.parent.name}.{snapshot.name}.{task}"


def measure_pair(snapshot: Path, skill: str) -> Pair:
    """The whole record of a snapshot on a task; without the sweep where full-parameter training shows no headroom."""
    policy = load_member(snapshot)
    task = make_task(skill)
    split = split_task(task, PROTOCOL)
    head = _head(snapshot, policy, task)
    began = time.perf_counter()
    base = expected_scores(policy, task, split, PROTOCOL, PROTOCOL.training.max_new_tokens)
    base["seconds"] = round(time.perf_counter() - began, 3)
    name, runs, best = pair_name(snapshot, skill), {}, -1.0
    for run, record in measure_arm(policy, task, split, PROTOCOL, base, None):
        if run.seed != PROTOCOL.training.seed and best - base["validation"]["greedy"] < HEADROOM:
            return Pair(name, head, base, runs)  # the first seed tells
        runs[run.key] = record
        if record["failed"] is None:
            best = max(best, record["validation"]["greedy"])
    runs |= {run.key: record for run, record in measure_layers(policy, task, split, PROTOCOL, base)}
    probes, warmup = measure_probes(policy, task, PROTOCOL), measure_warmup(policy, task, split, PROTOCOL)
    return Pair(name, head, base, runs, probes, warmup)


def _head(snapshot: Path, policy, task: Task) -> dict[str, Any]:
    made = json.loads((snapshot / "made.json").read_text(encoding="utf-8"))
    layers = [sum(p.numel() for p in policy.stack.parameters(k).values()) for k in range(policy.n_layers)]
    return {
        "policy": {
            **made,
            "member": snapshot.parent.name,
            "fingerprint": policy.weights_fingerprint(),
            "parameters": sum(p.numel() for p in policy.model.parameters()),
            "layer_parameters": layers,
        },
        "task": {"name": task.name, "reward": task.reward_name, "fingerprint": task.fingerprint()},
        "protocol": PROTOCOL.as_dict(),
        "sampled_scores": EXPECTED,
        "packages": package_versions(),
        "made": date.today().isoformat(),
    }


if __name__ == "__main__":
    main()
