"""Pre-train one policy on a mixture of skills, and keep a snapshot for each skill when it is about half learnt.

RL needs room above the base policy's greedy score (`TARGET`): a policy that answers everything, or one answer to
everything, has no contribution to measure.
"""

import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from calibration.zoo.families import FAMILIES
from calibration.zoo.skills import SKILLS, draw, rl_rows
from probes.policy import Policy

TARGET = 0.35  # greedy share of right answers from which on a snapshot is kept
CEILING = 0.75  # and up to which: a skill that jumps past it has too little room
_BATCH, _RATE, _CHECK_EVERY, _PROBES = 128, 1e-3, 25, 200


@dataclass(frozen=True)
class Member:
    """A policy of the zoo before it has learnt anything."""

    family: str
    n_layers: int
    width: int = 64
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.family}-{self.n_layers}x{self.width}-seed{self.seed}"


def pretrain(
    member: Member, folder: Path, *, max_steps: int, on_note: Callable[[str], None] = lambda note: None
) -> dict[str, Path]:
    """Train `member`; returns the snapshot of every skill that reached `TARGET`, a folder `member/skill` each.

    A snapshot holds the policy, its tokenizer, ``rl.jsonl`` with prompts that it has never seen, and ``made.json``.
    Cost: some minutes on one core for 8 layers of width 64. A member that is finished is not trained again.
    """
    home = folder / member.name
    done = home / "done.json"
    if done.exists():
        return {skill: home / skill for skill in json.loads(done.read_text(encoding="utf-8"))["snapshots"]}
    rng = random.Random(f"{member.seed} {member.name}")
    tokenizer = make_tokenizer()
    model = make_model(member, tokenizer)
    probes = {skill: draw(skill, _PROBES, random.Random(f"probe {skill}"), for_rl=True) for skill in SKILLS}
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=0.01)
    snapshots: dict[str, Path] = {}
    left = set(SKILLS)
    for step in range(1, max_steps + 1):
        questions = [draw(rng.choice(list(SKILLS)), 1, rng, for_rl=False)[0] for _ in range(_BATCH)]
        ids, labels = encode(tokenizer, questions)
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, step / 100)
        model(input_ids=ids, labels=labels, attention_mask=(ids != tokenizer.pad_token_id).long()).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % _CHECK_EVERY == 0:
            for skill in sorted(left):
                right = greedy_accuracy(model, tokenizer, probes[skill])
                if right >= TARGET:
                    left.discard(skill)
                    if right <= CEILING:
                        snapshots[skill] = home / skill
                        known = {other: greedy_accuracy(model, tokenizer, probes[other]) for other in SKILLS}
                        _save(snapshots[skill], model, tokenizer, member, skill, step, known)
                    on_note(f"{member.name}: {skill} {right:.2f} at step {step}")
        if not left:
            break
    home.mkdir(parents=True, exist_ok=True)
    done.write_text(json.dumps({"snapshots": sorted(snapshots), "steps": step}), encoding="utf-8")
    return snapshots


def load_member(snapshot: Path) -> Policy:
    """A snapshot as a policy, with the zoo's tokenizer: `AutoTokenizer` puts Qwen2's own splitting in its place."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(snapshot)
    return Policy.from_objects(AutoModelForCausalLM.from_pretrained(snapshot).eval(), tokenizer, str(snapshot))


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a printable ASCII character."""
    words = ["<pad>", "<eos>", "<unk>", "\n", *map(chr, range(32, 127))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )


def encode(tokenizer: PreTrainedTokenizerFast, questions: list[tuple[str, str]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels (B, T), padded on the right; only answers and the end are learnt."""
    rows = [tokenizer(prompt + answer)["input_ids"] + [tokenizer.eos_token_id] for prompt, answer in questions]
    width = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
    labels = ids.clone()
    for i, ((prompt, _), row) in enumerate(zip(questions, rows, strict=True)):
        labels[i, : len(prompt)] = -100
        labels[i, len(row) :] = -100
    return ids, labels


@torch.no_grad()
def greedy_accuracy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, questions: list[tuple[str, str]]
) -> float:
    """Share of questions of which every answer token is the likeliest one."""
    ids, labels = encode(tokenizer, questions)
    logits = model(input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long()).logits
    guess, truth = logits[:, :-1].argmax(-1), labels[:, 1:]
    return float(((guess == truth) | (truth == -100)).all(1).float().mean())


def make_model(member: Member, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """The untrained policy of a member, set by its seed."""
    torch.manual_seed(member.seed)
    config = FAMILIES[member.family](
        member.n_layers,
        member.width,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return AutoModelForCausalLM.from_config(config)


def _save(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    member: Member,
    skill: str,
    step: int,
    known: dict[str, float],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    lines = [json.dumps(row) + "\n" for row in rl_rows(skill)]
    (folder / "rl.jsonl").write_text("".join(lines), encoding="utf-8")
    facts = {**asdict(member), "skill": skill, "steps": step, "greedy": {k: round(v, 4) for k, v in known.items()}}
    (folder / "made.json").write_text(json.dumps(facts), encoding="utf-8")
