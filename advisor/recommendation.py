"""The recommendation as data: what `recommend` returns and `ranking.json` holds."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from advisor.decision import Verdict
from advisor.predicting import Predicted
from advisor.store import SCHEMA_VERSION
from calibration.known import KnownSweep
from calibration.race import Race
from probes.errors import UsageError
from probes.registry import Column
from probes.table import LayerTable, depth_correlation
from probes.training.state import TrainingState

if TYPE_CHECKING:
    from advisor.contributions import Contributions
    from advisor.exports import Exported
    from advisor.freezing import Frozen


@dataclass(frozen=True)
class Recommendation:
    """Which layer to train, with its evidence.

    ``pick`` holds layer indices (empty where the verdict is no), ``layers`` one record a layer in stack order with
    ``rank``, the expected ``contribution`` with the ends of its 90 % interval, the same over the policy's mean layer
    (``advantage``), ``p_best``, ``p_top3`` (all None where the verdict is no) and its probe values. ``fallback`` is the
    choice by position for a verdict of no. ``step_costs`` are what a training step of each layer alone takes over one
    of all parameters, sampling aside (None where the configuration was not read). ``known`` are sweeps that were
    measured of this policy before. At effort "warmup" ``race`` is what happened, ``warmup`` of a layer its gain where
    it stopped, and ``begun`` the state that the pick's training has reached there, None where it stopped early.
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
    predicted: Predicted | None
    folder: Path | None = None
    race: Race | None = None
    begun: TrainingState | None = field(default=None, repr=False)
    known: list[KnownSweep] = field(default_factory=list)
    step_costs: np.ndarray | None = None

    @property
    def layers(self) -> list[dict[str, Any]]:
        return [
            {
                "layer": k,
                **self._expected(k),
                "parameters": self.model["layer_parameters"][k],
                "step_cost": None if self.step_costs is None else round(float(self.step_costs[k]), 4),
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
            "predictor": self.predicted and self.predicted.as_dict(),
            "pick": self.pick,
            "fallback": self.fallback,
            "baselines": self.baselines,
            "reward": self.reward,
            "cost": self.cost,
            "race": self.race and self.race.as_dict(),
            "known_sweeps": [asdict(sweep) for sweep in self.known],
            "probes": {
                name: {
                    "unit": column.unit,
                    "meaning": column.meaning,
                    "depth_correlation": depth_correlation(self.table.columns[name]),
                }
                for name, column in self.columns.items()
                if name in self.table.columns
            },
            "not_measured": self.table.failures,
            "layers": self.layers,
        }

    @classmethod
    def load(cls, folder: str | Path) -> "Recommendation":
        """The recommendation that was written into `folder`, with all that its reports, exports and proof need.

        Numbers are those of ``ranking.json``, which has six decimals. Raises `UsageError` where there is none.
        """
        from advisor.warming import load_finalist

        folder = Path(folder).expanduser()
        try:
            found = json.loads((folder / "ranking.json").read_text(encoding="utf-8"))
            table = LayerTable(found["model"]["n_layers"], failures=found["not_measured"])
            table.add({name: np.array([la["probes"][name] for la in found["layers"]]) for name in found["probes"]})
            columns = {name: Column(name, told["unit"], told["meaning"]) for name, told in found["probes"].items()}
            race = found["race"] and Race.from_dict(found["race"])
            predicted = found["predictor"] and Predicted.from_dict(found["predictor"], found["layers"], race)
            known = [
                KnownSweep(k["source"], k["task"], {int(layer): c for layer, c in k["contributions"].items()})
                for k in found["known_sweeps"]
            ]
            costs = [la["step_cost"] for la in found["layers"]]
            same = ("model", "task", "protocol", "effort", "pick", "fallback", "baselines", "reward", "cost")
            result = cls(
                **{name: found[name] for name in same},
                verdict=Verdict(**found["verdict"]),
                table=table,
                columns=columns,
                predicted=predicted,
                folder=folder,
                race=race,
                known=known,
                step_costs=None if None in costs else np.array(costs),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"'{folder}' holds no recommendation that this program reads ({type(error).__name__}: {error}): give "
                "the output folder of advisor recommend, or run the same command again, which keeps what is finished."
            ) from error
        if race is not None and len(result.pick) == 1:
            result = replace(result, begun=load_finalist(folder, result.pick[0]))
        return result

    @property
    def order(self) -> list[int]:
        """Layers, best first; none where the verdict is no."""
        return self.predicted.prediction.order if self.predicted else []

    def _expected(self, k: int) -> dict[str, Any]:
        """What is predicted of layer k."""
        names = ("contribution", "low", "high", "advantage", "advantage_low", "advantage_high", "p_best", "p_top3")
        if self.predicted is None:
            return {"rank": None, **dict.fromkeys(names)}
        said = self.predicted.prediction
        return {"rank": said.rank(k), **{name: round(float(getattr(said, name)[k]), 6) for name in names}}

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
        `Protocol` or `TrainingConfig`, such as ``seeds=5`` or ``steps=60``. Raises `UsageError` where there is no pick.
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
            start=self.begun,
        )

    def freeze(self, model: Any) -> "Frozen":
        """Have `model` train exactly the pick; see `advisor.freezing.Frozen`, which undoes it by call or ``with``.

        Raises `UsageError` where there is no pick, or `model` has another number of layers than the one judged.
        """
        from advisor.freezing import Frozen

        return Frozen(model, self._pick_of(model))

    def param_groups(self, model: Any, lr: float, **options: Any) -> list[dict[str, Any]]:
        """Optimiser groups for `model`; see `advisor.freezing.param_groups`. Raises `UsageError` as `freeze` does."""
        from advisor.freezing import param_groups

        return param_groups(model, self._pick_of(model), lr, **options)

    def lora_config(self, model: Any = None, r: int = 16, **options: Any) -> Any:
        """PEFT's `LoraConfig` on the pick; see `advisor.freezing.lora_config`.

        Without a `model`, names are those of the one that was judged, whose configuration is read again.
        """
        from advisor.freezing import lora_config

        model = self.skeleton() if model is None else model
        return lora_config(model, self._pick_of(model), r, **options)

    def export(self, to: str, folder: str | Path | None = None, **options: Any) -> "Exported":
        """Write the pick as configuration of the training framework `to`; see `advisor.exports.export`."""
        from advisor.exports import export

        return export(self, to, folder, **options)

    def skeleton(self, trust_remote_code: bool = False) -> Any:
        """The judged model without its weights: every name and shape. Raises `UsageError` where it is not found."""
        from probes.policy import find_files
        from probes.progress import Progress
        from probes.skeleton import read_skeleton

        files = find_files(self.model["name"], Progress(), trust_remote_code, weights=False)
        return read_skeleton(files, trust_remote_code)

    def _pick_of(self, model: Any) -> list[int]:
        if not self.pick:
            raise UsageError(
                f"There is no pick to train (verdict {self.verdict.kind}): name layers yourself with "
                "advisor.freezing.Frozen(model, [K])."
            )
        from probes.stack import find_stack

        found, judged = len(find_stack(model)), self.model["n_layers"]
        if found != judged:
            raise UsageError(f"The recommendation is for {judged} layers, this model has {found}: give the same model.")
        return self.pick

    def report(self, folder: str | Path) -> None:
        """Write ``ranking.json``, ``report.md`` and ``report.html`` into `folder`."""
        from advisor.reports import write_reports

        write_reports(self, Path(folder))
