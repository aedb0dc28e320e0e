"""The recommendation as data: what `recommend` returns and `ranking.json` holds."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.decision import Verdict
from advisor.store import SCHEMA_VERSION
from calibration.race import Race
from calibration.ranking import Ranking
from probes.errors import UsageError
from probes.registry import Column
from probes.table import LayerTable, depth_correlation
from probes.training.state import TrainingState

if TYPE_CHECKING:
    from advisor.contributions import Contributions


@dataclass(frozen=True)
class Recommendation:
    """Which layer to train, with its evidence.

    ``pick`` holds layer indices (empty where the verdict is no), ``layers`` one record a layer in stack order with
    ``rank``, ``score`` (0 to 1, an order and no contribution), ``contribution``/``low``/``high``/``p_best`` (None
    until a predictor is fitted) and its probe values. ``fallback`` is the choice by position for a verdict of no.
    At effort "warmup" ``race`` is what happened, ``winner`` the state that the pick's training has reached, and
    ``warmup`` of a layer its gain where it stopped.
    """

    model: dict[str, Any]
    task: dict[str, Any] | None
    protocol: dict[str, Any]
    effort: str
    verdict: Verdict
    pick: list[int]
    fallback: dict[str, Any] | None
    baselines: dict[str, int]
    reward: dict[str, Any] | None
    cost: dict[str, Any]
    table: LayerTable
    columns: dict[str, Column]
    ranking: Ranking
    folder: Path | None = None
    race: Race | None = None
    winner: TrainingState | None = field(default=None, repr=False)

    @property
    def layers(self) -> list[dict[str, Any]]:
        ranked = self.verdict.has_ranking
        return [
            {
                "layer": k,
                "rank": self.ranking.rank(k) if ranked else None,
                "score": round(float(self.ranking.score[k]), 6) if ranked else None,
                "contribution": None,
                "low": None,
                "high": None,
                "p_best": None,
                "depth_prior": round(float(self.ranking.prior[k]), 6),
                "parameters": self.model["layer_parameters"][k],
                "warmup": self._warmup(k),
                "probes": self.table.row(k),
            }
            for k in range(self.table.n_layers)
        ]

    def as_dict(self) -> dict[str, Any]:
        """The content of ``ranking.json``."""
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "task": self.task,
            "protocol": self.protocol,
            "effort": self.effort,
            "verdict": {"kind": self.verdict.kind, "text": self.verdict.text},
            "calibrated": False,
            "pick": self.pick,
            "fallback": self.fallback,
            "baselines": self.baselines,
            "reward": self.reward,
            "cost": self.cost,
            "race": self.race and self.race.as_dict(),
            "probes": {
                name: {
                    "unit": column.unit,
                    "meaning": column.meaning,
                    "vote": column.vote(self.protocol["decoding"]),
                    "depth_correlation": depth_correlation(self.table.columns[name]),
                }
                for name, column in self.columns.items()
                if name in self.table.columns
            },
            "not_measured": self.table.failures,
            "layers": self.layers,
        }

    def _warmup(self, k: int) -> dict[str, Any] | None:
        """What the race says of layer k: its gain at its last rung, and why it stopped there."""
        last = self.race and self.race.last_of(k)
        if not last:
            return None
        rung, standing = last
        gain = standing.gain
        found = {"steps": rung.step, "rate": standing.rate, "score": standing.score, "out": standing.out}
        return found | {"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high}

    def verify(
        self,
        model: Any = None,
        tokenizer: Any = None,
        task: Any = None,
        *,
        output_dir: Any = None,
        progress: Any = None,
        trust_remote_code: bool = False,
        **changes,
    ) -> "Contributions":
        """Train the pick and say what that brings: `advisor.verify` with this recommendation's decoding and sampling.

        Model and task may be left out where the recommendation was made from names; `changes` are fields of
        `Protocol`, such as ``seeds=5``. Raises `UsageError` where there is no pick.
        """
        from advisor.verification import options_like, task_of, verify

        if not self.pick:
            raise UsageError(f"There is no pick to prove (verdict {self.verdict.kind}): call advisor.verify(layer=K).")
        place = {"device": self.model.get("device", "auto"), "dtype": self.model.get("dtype", "auto")}
        place["trust_remote_code"] = trust_remote_code
        return verify(
            model or self.model["name"],
            tokenizer,
            task or task_of({"task": self.task}),
            layer=self.pick,
            options=options_like(self.protocol, place, **changes),
            output_dir=output_dir,
            progress=progress,
            start=self.winner,
        )

    def report(self, folder: str | Path) -> None:
        """Write ``ranking.json``, ``report.md`` and ``report.html`` into `folder`."""
        from advisor.reports import write_reports

        write_reports(self, Path(folder))
