"""`advisor calibrate`: the user's own sweeps beside the corpus, and predictors fitted on both."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

from advisor.predicting import PAIRS
from advisor.warming import affordable
from calibration.corpus.measuring import measure_probes, measure_warmup
from calibration.corpus.records import SAMPLES, SMALL_POLICIES, Pair, load_corpus, package_versions, save_pair
from calibration.examples import make_examples
from calibration.fitting import Fitted, fit_predictors
from calibration.protocol import Protocol, split_task
from calibration.runs import Run
from probes.errors import UsageError
from probes.policy import Policy, load_policy
from probes.progress import Progress
from probes.registry import DECODINGS
from probes.tasks import reload_task


def calibrate(
    sweeps: Sequence[str | Path] = (),
    output_dir: str | Path = "advisor-predictor",
    *,
    with_corpus: bool = True,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
    progress: Progress | None = None,
    on_fitted: Callable[[Fitted], None] = lambda fitted: None,
) -> list[Fitted]:
    """Fit predictors for every effort and decoding on the corpus and on `sweeps`, folders of `advisor sweep`.

    Of a sweep that was not calibrated with before, the policy is loaded once and its probes and warm-ups are measured,
    as a recommendation would see them (about a tenth of the sweep); they are kept in ``pairs`` of `output_dir`, and
    every pair there counts. Raises `UsageError` for a folder that holds no whole sweep with full-parameter training.
    """
    progress, folder = progress or Progress(), Path(output_dir).expanduser()
    found = [(Path(sweep).expanduser(), *_read(Path(sweep).expanduser())) for sweep in sweeps]  # before anything slow
    progress.plan({f"measure {path.name}": 60.0 for path, _, _ in found} | {"fit predictors": 40.0})
    for path, told, journal in found:
        name = f"{path.resolve().name}-{_short_hash(told, journal)}"
        if (folder / PAIRS / f"{name}.jsonl.gz").exists():
            continue
        progress.begin(f"measure {path.name}", 3)
        place = {"device": device, "dtype": dtype, "trust_remote_code": trust_remote_code, "progress": progress}
        policy = load_policy(told["model"]["name"], **place)
        progress.advance()
        save_pair(_measured(name, told, journal, policy, progress), folder / PAIRS)
    own = load_corpus([folder / PAIRS])
    pairs = [*(load_corpus([SMALL_POLICIES]) if with_corpus else []), *own]
    if not any(pair.is_whole for pair in pairs):
        raise UsageError("There is no sweep to fit on: give folders of advisor sweep, or leave out --no-corpus.")
    for pair in own:
        unknown = [d for d in DECODINGS if not make_examples([pair], "static", d)]
        if unknown:
            progress.note(
                f"'{pair.name}' is not fitted on for {' and '.join(unknown)} decoding: the gain of full-parameter "
                "training, or the score of some layer, is not known well enough"
            )
    progress.begin("fit predictors", 6)

    def fitted(one: Fitted) -> None:
        progress.advance()
        on_fitted(one)

    return fit_predictors(pairs, folder, fitted)


def _read(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """``sweep.json`` and the journal of a sweep that has every layer and full-parameter training."""
    hint = "give the output folder of a finished advisor sweep of every layer."
    try:
        told = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
        lines = (folder / "journal.jsonl").read_text(encoding="utf-8").splitlines()
        journal = [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise UsageError(f"'{folder}' holds no sweep ({error}): {hint}") from error
    if told.get("kind") != "sweep":
        raise UsageError(f"'{folder}' holds a {told.get('kind')}, not a sweep: {hint}")
    arms = {entry["value"]["arm"] for entry in journal if entry["kind"] == "run"}
    wanted = [f"layer {k}" for k in range(told["model"]["n_layers"])] + ["full"]
    missing = [arm for arm in wanted if arm not in arms]
    if missing:
        raise UsageError(f"The sweep in '{folder}' lacks {', '.join(missing)}: {hint}")
    return told, journal


def _measured(
    name: str, told: dict[str, Any], journal: list[dict[str, Any]], policy: Policy, progress: Progress
) -> Pair:
    """The pair of a sweep, with probes and warm-ups measured now."""
    task = reload_task(told["task"]["origin"])
    protocol = Protocol.from_dict(told["protocol"])
    training = replace(protocol.training, base_steps=0)
    protocol = replace(protocol, training=training)
    split = split_task(task, protocol)
    # A mended reward leaves the runs of the one before in the journal: keys begin with the reward's fingerprint.
    last = [entry for entry in journal if entry["kind"] == "base"][-1]
    records = [e["value"] for e in journal if e["kind"] == "run" and e["key"].startswith(last["key"])]
    runs = {}
    for record in records:
        short = {k: v for k, v in record.items() if k not in ("curve", "peak_memory_bytes")}
        short["rewards"] = [step["reward"] for step in record["curve"]]
        layers = None if record["layers"] is None else tuple(record["layers"])
        runs[Run(layers, record["seed"], record["rate"]).key] = {"held_out": None, **short}
    base = last["value"]["record"]
    head = {
        "policy": {
            "family": policy.model.config.model_type,
            "member": told["model"]["name"].rstrip("/").rsplit("/", 1)[-1],
            "n_layers": policy.n_layers,
            "fingerprint": policy.weights_fingerprint(),
            "parameters": policy.n_parameters,
            "layer_parameters": told["model"]["layer_parameters"],
        },
        "task": {"name": task.name, "reward": task.reward_name, "fingerprint": task.fingerprint()},
        "protocol": protocol.as_dict(),
        "sampled_scores": SAMPLES,
        "packages": package_versions(),
        "made": date.today().isoformat(),
    }
    probes = measure_probes(policy, task, protocol)
    progress.advance()
    arms = affordable(policy, protocol.learning_rates, range(policy.n_layers), progress)
    warmup = measure_warmup(policy, task, split, protocol, arms)
    progress.advance()
    return Pair(name, head, base, runs, probes, warmup)


def _short_hash(told: dict[str, Any], journal: list[dict[str, Any]]) -> str:
    """Eight hex digits that tell two sweeps apart, and a sweep from one that has gone on since."""
    content = json.dumps([told["model"], told["task"], told["protocol"], journal], sort_keys=True)
    return sha256(content.encode()).hexdigest()[:8]
