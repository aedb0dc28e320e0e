"""The pick as configuration of training frameworks: one file a framework, one line each in `TARGETS`."""

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from advisor.recommendation import Recommendation

TARGETS = {  # name: module in this folder
    "peft": "peft",
    "trl": "trl",
    "axolotl": "axolotl",
    "llama-factory": "llama_factory",
    "ms-swift": "ms_swift",
    "verl": "verl",
    "openrlhf": "openrlhf",
    "unsloth": "unsloth",
    "spectrum": "spectrum",
}


_LISTED = ".exported.json"  # names of what an export wrote, so that the next one leaves none of it


@dataclass(frozen=True)
class Exported:
    """What was written for a framework. ``way`` is "full" (the layers' weights) or "lora", ``says`` how many
    parameters in which layers, ``run`` how training starts, ``checked_with`` what read the files in our tests."""

    to: str
    way: str
    says: str
    files: list[Path]
    run: str
    checked_with: str
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        from advisor.store import SCHEMA_VERSION

        return {"schema_version": SCHEMA_VERSION, **vars(self), "files": [str(file) for file in self.files]}


def export(
    rec: "Recommendation",
    to: str,
    folder: str | Path | None = None,
    *,
    lora: bool = False,
    rank: int = 16,
    with_data: bool = True,
    model: "PreTrainedModel | None" = None,
    trust_remote_code: bool = False,
) -> Exported:
    """Write the pick of `rec` for the framework `to` (see `TARGETS`) into `folder`.

    `folder` defaults to ``exports/NAME`` where the recommendation is kept. The layers' weights are trained where the
    framework can be told to, LoRA matrices of `rank` otherwise or with `lora`. Names are those of `model`, by default
    of the judged model's configuration. The task's training prompts and reward are written beside the configuration
    (`with_data`); held-out prompts stay out of training. Raises `UsageError` where there is no pick, or the framework
    cannot do it.
    """
    from advisor.exports.material import Material
    from advisor.exports.pick import Pick
    from advisor.exports.target import LORA, Order
    from advisor.store import write_whole

    if to not in TARGETS:
        raise unknown_name("framework", to, TARGETS, "Pass one of these as --to.")
    if rank < 1:
        raise UsageError(f"A rank of {rank} is not allowed: it must be at least 1.")
    if not rec.pick:
        raise UsageError(
            f"There is no pick to export (verdict {rec.verdict.kind}); the report says what to do instead."
        )
    if folder is None and rec.folder is None:
        raise UsageError("Say where the export goes: this recommendation was not written into a folder.")
    folder = Path(folder).expanduser() if folder is not None else rec.folder / "exports" / to
    target = importlib.import_module(f"advisor.exports.{TARGETS[to]}")
    pick = Pick.of(rec.skeleton(trust_remote_code) if model is None else model, rec.pick)
    if pick.n_layers != rec.model["n_layers"]:
        raise UsageError(
            f"The recommendation is for {rec.model['n_layers']} layers, '{rec.model['name']}' has {pick.n_layers}: the "
            "model behind this name has changed."
        )
    ways = target.ways(pick)
    if lora and LORA not in ways:
        raise UsageError(f"{to} cannot put LoRA on these layers alone: leave out --lora.")
    way = LORA if lora else ways[0]
    if way == LORA and not pick.linear:
        raise UsageError(f"Layers {list(pick.layers)} have no linear maps that LoRA can adapt.")
    material = Material.of(rec, with_data, trust_remote_code)
    written = target.write(Order(pick, material, way, rank, target.CHECKED_WITH))
    _clear(folder)
    for name, text in written.files.items():
        write_whole(folder / name, text)
    write_whole(folder / _LISTED, json.dumps(sorted(written.files)) + "\n")
    files = [folder / name for name in written.files]
    notes = material.notes + written.notes
    if way == LORA and pick.n_stacked:
        notes.append(
            f"LoRA leaves out {pick.n_stacked:,} parameters in tensors of three dimensions, such as stacked experts."
        )
    return Exported(to, way, pick.says(way, rank), files, written.run, target.CHECKED_WITH, notes)


def _clear(folder: Path) -> None:
    """Remove what an earlier export left in the folder, and nothing else."""
    listed = folder / _LISTED
    for name in json.loads(listed.read_text(encoding="utf-8")) if listed.is_file() else []:
        (folder / name).unlink(missing_ok=True)
