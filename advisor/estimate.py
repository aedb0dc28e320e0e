"""What an RL step of a model takes when all of it, one layer, or LoRA on one layer is trained: ``advisor estimate``."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from advisor.environment import available_memory_bytes
from advisor.store import SCHEMA_VERSION
from probes.cost import Arm, Counted, Machine, Seconds, StepShape, count_step, make_bench, roofline, time_step
from probes.errors import UsageError
from probes.policy import DTYPES, ModelFiles, Policy, check_dtype, find_files, resolve_device
from probes.progress import Progress
from probes.skeleton import read_skeleton
from probes.stack import find_stack

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_SPARE = 0.8  # of the free memory, which timing may take
# Absolute relative errors of `tests/benchmarks/estimate.py` (results/estimate.txt): three policies of 15 to 135 M
# parameters, each trained in full, one layer, and LoRA, on a CPU core. "resident" is what a CPU process holds: more
# than is in use, since its C library keeps freed memory.
CHECKED: dict[str, dict[str, float]] = {
    "generation": {"median": 0.017, "worst": 0.076},
    "forward": {"median": 0.036, "worst": 0.139},
    "backward": {"median": 0.041, "worst": 0.214},
    "optimizer": {"median": 0.114, "worst": 0.164},
    "step": {"median": 0.028, "worst": 0.073},
    "resident": {"median": 0.168, "worst": 0.291},
    "peak": {"median": 0.032, "worst": 0.071},
}


@dataclass(frozen=True)
class ArmEstimate:
    """One way to train: sizes in parameters and bytes, FLOPs and seconds of one step, None where not timed.

    ``activations`` are the bytes that one pass keeps for backward; ``training`` the most beside weights and optimiser
    at any moment of it, gradients and backward's own buffers included.
    """

    name: str
    layer: int | None
    rank: int | None
    trainable: int
    share: float  # of all parameters
    gradients: int
    optimizer: int
    activations: int
    training: int
    peak: int
    forward_flops: float
    backward_flops: float
    seconds: Seconds | None

    @property
    def backward_share(self) -> float | None:
        """Share of the step that backward takes."""
        return self.seconds and self.seconds.backward / self.seconds.step


@dataclass(frozen=True)
class Estimate:
    """What `estimate` found. ``arms`` begins with all parameters; ``timed`` says where the seconds are from.

    ``cache`` are bytes of keys and values when completions are longest, ``sampling`` the most that sampling takes
    beside the weights. What the process itself holds is not in any figure: libraries, and freed
    memory that the C library keeps on a CPU (see `CHECKED`).
    """

    model: str
    n_layers: int
    parameters: int
    dtype: str
    device: str
    optimizer: str
    shape: StepShape
    weights: int
    cache: int
    sampling: int
    timed: str  # "measured", "roofline" or "not"
    arms: list[ArmEstimate]
    steps: int | None = None
    machine: Machine | None = None

    @property
    def full(self) -> ArmEstimate:
        return self.arms[0]

    @property
    def generation_share(self) -> float | None:
        """Share of drawing completions in a step that trains everything."""
        return self.full.seconds and self.full.seconds.generation / self.full.seconds.step

    def faster(self, arm: ArmEstimate) -> float | None:
        """How many steps of the arm are done in the time of one that trains everything."""
        return arm.seconds and self.full.seconds.step / arm.seconds.step

    def backward_of_full(self, arm: ArmEstimate) -> float:
        """FLOPs of the arm's backward pass over those when everything is trained."""
        return arm.backward_flops / self.full.backward_flops

    @property
    def sentence(self) -> str:
        """The result in plain words."""
        arm = self.arms[1]
        saved = self.full.peak - arm.peak
        memory = f"needs {in_units(saved)} less" if saved > 0 else "needs no less memory, since sampling takes most"
        if arm.seconds is None:
            return f"{arm.name.capitalize()} alone {memory}; backward is {self.backward_of_full(arm):.0%} of full's."
        return (
            f"Generation is {self.generation_share:.0%} of a step of full training: {arm.name} alone makes a step "
            f"{self.faster(arm):.2g} times as fast and {memory}."
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "schema_version": SCHEMA_VERSION,
            "model": {"name": self.model, "n_layers": self.n_layers, "parameters": self.parameters},
            "dtype": self.dtype,
            "device": self.device,
            "optimizer": self.optimizer,
            "step": asdict(self.shape) | {"rows_per_pass": self.shape.pass_rows, "completions": self.shape.rows},
            "steps": self.steps,
            "bytes": {"weights": self.weights, "cache": self.cache, "sampling": self.sampling},
            "timed": self.timed,
            "machine": self.machine and asdict(self.machine),
            "checked": CHECKED,
            "generation_share": self.generation_share,
            "arms": [self._told(arm) for arm in self.arms],
            "sentence": self.sentence,
        }

    def _told(self, arm: ArmEstimate) -> dict[str, Any]:
        numbers = ("name", "layer", "rank", "trainable", "share", "forward_flops", "backward_flops", "backward_share")
        sizes = ("gradients", "optimizer", "activations", "training", "peak")
        seconds = arm.seconds and asdict(arm.seconds) | {"step": arm.seconds.step}
        return {name: getattr(arm, name) for name in numbers} | {
            "bytes": {name: getattr(arm, name) for name in sizes},
            "seconds": seconds,
            "run_seconds": seconds and self.steps and seconds["step"] * self.steps,
            "faster": self.faster(arm),
            "backward_of_full": self.backward_of_full(arm),
        }


def in_units(n_bytes: float) -> str:
    """ "3.1 GiB", "14 MiB", ..."""
    for unit in ("KiB", "MiB"):
        n_bytes /= 1024
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
    return f"{n_bytes / 1024:.3g} GiB"


def estimate(
    model: str | PreTrainedModel,
    *,
    layers: Sequence[int] | None = None,
    shape: StepShape | None = None,
    dtype: str = "auto",
    optimizer: str = "adamw",
    rank: int | None = 16,
    device: str = "auto",
    machine: Machine | None = None,
    timed: bool = True,
    steps: int | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> Estimate:
    """Parameters, memory and seconds of one RL step for full training, each of `layers`, and LoRA on the first of them.

    `model` is a name as on the command line, or a model, of which only the configuration is read. `layers` None are
    the middle and the last layer; `rank` None leaves LoRA out. Operations and bytes are counted on a model without
    numbers. Seconds are measured here, on a few layers with random weights, unless `machine` says what another one
    achieves, or `timed` is False. Cost: no weights; seconds, and memory of a few layers beside the embeddings. Raises
    `UsageError` where the step is not possible, or timing would not fit into memory.
    """
    progress, shape = progress or Progress(), shape or StepShape()
    check_dtype(dtype)
    if steps is not None and steps < 1:
        raise UsageError(f"{steps} steps are not allowed (--steps): a run has at least 1.")
    name, skeleton = _skeleton(model, progress, trust_remote_code)
    policy = Policy(name, skeleton, None, find_stack(skeleton))
    shape.check_fits(policy.context_length)
    n = policy.n_layers
    chosen = list(dict.fromkeys(layers or [n // 2, n - 1]))
    arms = [Arm(), *(Arm(k) for k in chosen)] + ([Arm(chosen[0], rank)] if rank is not None and chosen else [])
    place = torch.device("cpu") if machine else resolve_device(device)
    number = weights_dtype(dtype, skeleton.config, place, machine)
    progress.begin("count operations and bytes", 1)
    counted = count_step(
        skeleton.config, arms, shape, dtype=number, optimizer=optimizer, trust_remote_code=trust_remote_code
    )
    progress.advance()
    seconds: dict[Arm, Seconds] = {}
    if machine is not None:
        seconds = roofline(counted, machine)
    elif timed:
        seconds = _measured(counted, place, progress)
    return Estimate(
        model=name,
        n_layers=n,
        parameters=counted.parameters,
        dtype=str(number).removeprefix("torch."),
        device="another machine" if machine else str(place),
        optimizer=optimizer,
        shape=shape,
        weights=counted.weight_bytes,
        cache=counted.cache_bytes,
        sampling=counted.sampling_bytes,
        timed="roofline" if machine else "measured" if timed else "not",
        arms=[_arm(counted, arm, seconds.get(arm)) for arm in counted.arms],
        steps=steps,
        machine=machine,
    )


def _arm(counted: Counted, arm: Arm, seconds: Seconds | None) -> ArmEstimate:
    count, passes = counted.arms[arm], counted.shape.passes
    return ArmEstimate(
        arm.name,
        arm.layer,
        arm.rank,
        count.trainable,
        count.trainable / counted.parameters,
        count.gradients,
        count.optimizer,
        count.activations,
        count.peak,
        counted.peak_bytes(arm),
        count.forward_flops * passes,
        count.backward_flops * passes,
        seconds,
    )


def _measured(counted: Counted, device: torch.device, progress: Progress) -> dict[Arm, Seconds]:
    bench, free = make_bench(counted, device), available_memory_bytes(device)
    if free is not None and bench.bytes > _SPARE * free:
        raise UsageError(
            f"Timing {bench.sampling_layers} of the model's layers takes about {bench.bytes / 2**30:.1f} GiB, but "
            f"{free / 2**30:.1f} GiB are free on {device}: pass --no-time to count without timing, or --tflops and "
            "--bandwidth of the machine that is meant."
        )
    progress.begin("time a few layers", 1)
    seconds = time_step(counted, bench)
    progress.advance()
    return seconds


def _skeleton(model: str | PreTrainedModel, progress: Progress, trust_remote_code: bool) -> tuple[str, PreTrainedModel]:
    if not isinstance(model, str | ModelFiles):
        return getattr(model, "name_or_path", "") or type(model).__name__, model
    files = find_files(model, progress, trust_remote_code, weights=False)
    return files.name, read_skeleton(files, trust_remote_code)


def weights_dtype(
    dtype: str, config: "PretrainedConfig", device: torch.device, machine: Machine | None = None
) -> torch.dtype:
    """As `load_policy` would have it: the checkpoint's, except that CPUs get float32 for float16."""
    if dtype != "auto":
        return DTYPES[dtype]
    found = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None) or torch.float32
    found = found if isinstance(found, torch.dtype) else DTYPES.get(found, torch.float32)
    return torch.float32 if found == torch.float16 and device.type == "cpu" and machine is None else found
