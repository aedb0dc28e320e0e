"""Measure probes on one policy: shared passes are paid once, failures become reasons, the policy is left as found."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property

from probes.checkpoint import LayerWeights, LoadedWeights
from probes.errors import ProbeFailure
from probes.layout import GroupBatch
from probes.memory import Memory
from probes.objective import lay_out
from probes.policy import Policy
from probes.preserve import left_as_found
from probes.progress import Progress
from probes.registry import Probe
from probes.rollouts import Rollouts
from probes.table import LayerTable
from probes.tape import Tape, recorded


class Measurement:
    """What a probe may use. Passes over the rollouts are made when first asked for and then shared."""

    def __init__(
        self,
        weights: LayerWeights,
        policy: Policy | None = None,
        rollouts: Rollouts | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.weights, self._policy, self._rollouts = weights, policy, rollouts
        self.progress = progress or Progress()
        self._open = ExitStack()

    @property
    def policy(self) -> Policy:
        if self._policy is None:
            raise ProbeFailure("needs the policy in memory (--effort probe)")
        return self._policy

    @cached_property
    def batches(self) -> list[GroupBatch]:
        """The groups with reward spread, laid out for the model."""
        if self._rollouts is None:
            raise ProbeFailure("needs rollouts (--effort probe)")
        batches = lay_out(self.policy, self._rollouts)
        if not batches:
            raise ProbeFailure("no prompt group has reward spread, so the objective has no gradient")
        return batches

    @cached_property
    def tape(self) -> Tape:
        """The recorded forward pass over the batches."""
        return self._open.enter_context(recorded(self.policy, self.batches, progress=self.tick))

    def tick(self) -> None:
        """A probe has done one more unit of its stage."""
        self.progress.advance()

    def __enter__(self) -> "Measurement":
        if self._policy is not None:
            self._open.enter_context(left_as_found(self._policy.model))
            self._policy.model.eval()
        return self

    def __exit__(self, *exc) -> None:
        self.__dict__.pop("tape", None)
        self._open.close()


def measure(
    probes: Sequence[Probe],
    weights: LayerWeights | None = None,
    policy: Policy | None = None,
    rollouts: Rollouts | None = None,
    *,
    progress: Progress | None = None,
    memory: Memory | None = None,
    key: str = "",
) -> LayerTable:
    """The layer table of `probes`. `weights` default to the policy's own; `key` names the inputs in `memory`.

    A probe that cannot be measured is named in the table's ``failures``; errors that are not a probe's own end the
    run. The policy is as found afterwards, also after an exception or an interrupt.
    """
    progress, memory = progress or Progress(), memory or Memory()
    weights = weights or LoadedWeights.of(policy)
    table = LayerTable(weights.n_layers)
    with Measurement(weights, policy, rollouts, progress) as measurement:
        for probe in probes:
            done = memory.recall("probe", f"{probe.key} {key}")
            if done is not None:
                table.add(done["columns"])
                table.seconds[probe.name] = done["seconds"]
                continue
            start = time.perf_counter()
            progress.begin(f"probe {probe.name}", _units(probe, weights, rollouts))
            try:
                columns = probe.measure(measurement)
                _check_names(probe, columns)
                table.add(columns)
            except ProbeFailure as failure:
                table.failures[probe.name] = str(failure)
            except Exception as error:
                # Out of memory, a missing kernel, a class that captum cannot handle: a reason in the report, and the
                # other probes go on. So do they where an own probe breaks; a shipped one that breaks is our fault.
                if not (probe.is_own or isinstance(error, RuntimeError | AssertionError)):
                    raise
                first = (str(error).strip().splitlines() or [""])[0][:300]
                table.failures[probe.name] = f"{type(error).__name__}: {first}" if probe.is_own or not first else first
            else:
                table.seconds[probe.name] = time.perf_counter() - start
                memory.keep(
                    "probe",
                    f"{probe.key} {key}",
                    {
                        "columns": {name: table.columns[name].tolist() for name in columns},
                        "seconds": table.seconds[probe.name],
                    },
                )
    return table


def _check_names(probe: Probe, columns: dict) -> None:
    declared = [column.name for column in probe.columns]
    if sorted(columns) != sorted(declared):
        raise ProbeFailure(f"the columns {sorted(columns)} were returned, {sorted(declared)} are declared")


def _units(probe: Probe, weights: LayerWeights, rollouts: Rollouts | None) -> float:
    n = len(rollouts.informative) if rollouts else 0
    return {"weights": weights.n_layers, "activations": 2 * n, "gradients": n * weights.n_layers}.get(
        probe.name, max(n, 1)
    )
