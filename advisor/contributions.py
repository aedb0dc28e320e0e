"""Measured contributions as data: what `verify` and `sweep` return and write."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from advisor.decision import Verdict
from advisor.store import SCHEMA_VERSION
from calibration.contribution import Estimate, Scores
from calibration.protocol import Protocol
from calibration.runs import FULL, Run, arm_name
from calibration.sweep import ArmResult, Sweep
from probes.errors import UsageError
from probes.registry import DECODINGS

RESULT_FILES = ("verification.json", "sweep.json")
PROVEN = ("confirmed", "measured")  # the verdicts that answer the question with yes


@dataclass(frozen=True)
class Contributions:
    """What training each arm brought, against the base policy and full-parameter training.

    ``kind`` is "verification" or "sweep". ``roles`` say what each arm is for, by arm name ("layer 17": ["pick"]).
    ``sweep`` is None where the verdict came before any training. ``saved`` is the file with the pick's trained weights,
    for `advisor.load_layers`.
    """

    kind: str
    model: dict[str, Any]
    task: dict[str, Any]
    protocol: dict[str, Any]
    reference: str
    verdict: Verdict
    roles: dict[str, list[str]]
    base: dict[str, Any] | None
    sweep: Sweep | None
    cost: dict[str, Any]
    folder: Path | None = None
    saved: Path | None = None

    @classmethod
    def load(cls, folder: str | Path) -> "Contributions":
        """What `advisor verify` or `advisor sweep` left in `folder`: its result file, and every run of its journal.

        Raises `UsageError` where either is missing or does not fit the other.
        """
        folder = Path(folder).expanduser()
        try:
            file = next((f for f in map(folder.joinpath, RESULT_FILES) if f.exists()), folder / RESULT_FILES[0])
            found = json.loads(file.read_text(encoding="utf-8"))
            scored = found.get(DECODINGS[0], {}).get("layers", [])
            full = found.get(DECODINGS[0], {}).get("full")
            arms = [(la["layer"],) if isinstance(la["layer"], int) else tuple(la["layer"]) for la in scored]
            roles = {arm_name(arm): la["role"].split(", ") for arm, la in zip(arms, scored, strict=True)}
            base = sweep = None
            if DECODINGS[0] in found:
                lines = (folder / "journal.jsonl").read_text(encoding="utf-8").splitlines()
                base, runs = _of_journal([json.loads(line) for line in lines], found["runs"])
            if found["runs"]:
                sweep = Sweep(Protocol.from_dict(found["protocol"]), arms + ([None] if full else []), base, runs)
            same = ("kind", "model", "task", "protocol", "reference", "cost")
            return cls(
                **{name: found[name] for name in same},
                verdict=Verdict(**found["verdict"]),
                roles=roles | ({FULL: full["role"].split(", ")} if full else {}),
                base=base,
                sweep=sweep,
                folder=folder,
                saved=found["saved"] and folder / "trained" / found["saved"],
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"'{folder}' holds no verification or sweep that can be read back ({type(error).__name__}: {error}): "
                "give the whole output folder of advisor verify or advisor sweep, or run the same command again."
            ) from error

    @property
    def decoding(self) -> str:
        return self.protocol["decoding"]

    @property
    def proven(self) -> bool:
        """Whether the verdict is yes."""
        return self.verdict.kind in PROVEN

    def results(self, decoding: str | None = None) -> dict[str, ArmResult]:
        """Every arm's result under `decoding` (None: the protocol's), in stack order, full-parameter training last."""
        found = self.sweep.results(decoding or self.decoding) if self.sweep else {}
        return dict(sorted(found.items(), key=lambda item: (item[1].layers is None, item[1].layers or ())))

    def scores(self, decoding: str | None = None) -> Scores:
        """Joint bootstrap of the base policy and of every arm that has a score."""
        if self.sweep:
            return self.sweep.scores(decoding or self.decoding)
        return Scores(np.array(self.base["held_out"][decoding or self.decoding], dtype=float), {})

    @property
    def runs(self) -> list[dict[str, Any]]:
        """Every run, in the order of arms, rates and seeds, without its scores on single prompts."""
        if self.sweep is None:
            return []
        leave_out = ("held_out", "curve")
        return [
            {k: v for k, v in record.items() if k not in leave_out}
            | {"rewards": [step["reward"] for step in record["curve"]]}
            for record in sorted(
                self.sweep.records.values(),
                key=lambda r: (r["layers"] is None, r["layers"] or [], r["rate"], r["seed"]),
            )
        ]

    def as_dict(self) -> dict[str, Any]:
        """The content of ``verification.json`` or ``sweep.json``."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": self.kind,
            "model": self.model,
            "task": self.task,
            "protocol": self.protocol,
            "reference": self.reference,
            "verdict": {"kind": self.verdict.kind, "text": self.verdict.text},
            **({decoding: self._under(decoding) for decoding in DECODINGS} if self.base else {}),
            "runs": self.runs,
            "saved": self.saved and self.saved.name,
            "cost": self.cost,
        }

    def report(self, folder: str | Path) -> None:
        """Write ``verification.json`` (or ``sweep.json``), ``report.md`` and ``report.html`` into `folder`."""
        from advisor.reports import write_contributions

        write_contributions(self, Path(folder))

    def _under(self, decoding: str) -> dict[str, Any]:
        results, scores = self.results(decoding), self.scores(decoding)
        arms = {name: _arm(result, self.roles[name]) for name, result in results.items()}
        full = arms.pop(FULL, None)
        return {
            "base": _ends(scores.score(None), "score"),
            "held_out_prompts": scores.n_prompts,
            "full": full,
            "layers": list(arms.values()),
            "seed_agreement": self.sweep.seed_agreement(decoding) if self.sweep else None,
        }


def _of_journal(
    journal: list[dict[str, Any]], told: list[dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The base policy's record, and the runs that a result file tells of, by `Run.key`.

    Keys begin with the reward's fingerprint: a mended reward leaves what was run under the one before in the journal.
    """
    records = {(entry["kind"], entry["key"]): entry["value"] for entry in journal}
    keys = [Run(run["layers"] and tuple(run["layers"]), run["seed"], run["rate"]).key for run in told]
    for prefix in [key for kind, key in records if kind == "base"]:
        found = {key: records.get(("run", prefix + key)) for key in keys}
        if all(r is not None and r["seconds"] == run["seconds"] for r, run in zip(found.values(), told, strict=True)):
            return records["base", prefix]["record"], found
    raise ValueError("its journal.jsonl lacks runs that the result file tells of")


def roles_of(arms: Sequence[tuple[str, tuple[int, ...] | None]]) -> dict[str, list[str]]:
    """Roles by arm name; one arm may have several."""
    roles: dict[str, list[str]] = {}
    for role, layers in arms:
        roles.setdefault(arm_name(layers), []).append(role)
    return roles


def _arm(result: ArmResult, roles: list[str]) -> dict[str, Any]:
    layers = result.layers
    return {
        "layer": None if layers is None else layers[0] if len(layers) == 1 else list(layers),
        "role": ", ".join(roles),
        **_ends(result.score, "score"),
        **_ends(result.gain, "gain"),
        "contribution": result.contribution and _round(result.contribution.value),
        "low": result.contribution and _round(result.contribution.low),
        "high": result.contribution and _round(result.contribution.high),
        "learning_rate": result.learning_rate,
        "seeds": result.seeds,
        "score_by_seed": [_round(value) for value in result.by_seed],
        "failures": result.failures,
    }


def _ends(estimate: Estimate | None, name: str) -> dict[str, float | None]:
    values = (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), map(_round, values), strict=True))


def _round(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)
