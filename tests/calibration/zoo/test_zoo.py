"""The zoo's parts: its families, its skills, and one member taught for a few steps."""

import json
import random

import pytest
import torch

from calibration.zoo import pretraining
from calibration.zoo.families import FAMILIES
from calibration.zoo.pretraining import (
    Member,
    encode,
    greedy_accuracy,
    load_member,
    make_model,
    make_tokenizer,
    pretrain,
)
from calibration.zoo.roster import ROSTER
from calibration.zoo.skills import SKILLS, draw, is_for_rl
from probes.policy import load_policy
from probes.stack import find_stack
from probes.tasks import load_task


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_the_layers_that_were_asked_for_and_is_set_by_its_seed(family):
    tokenizer = make_tokenizer()
    first, same, other = (make_model(Member(family, 3, 32, seed), tokenizer) for seed in (0, 0, 1))
    assert len(find_stack(first)) == 3
    equal = [torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True)]
    assert all(equal)
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("skill", SKILLS)
def test_pre_training_never_sees_a_question_of_rl(skill):
    rl, taught = (draw(skill, 200, random.Random(0), for_rl=side) for side in (True, False))
    assert len({prompt for prompt, _ in rl}) == len(rl) == 200
    assert not {prompt for prompt, _ in rl} & {prompt for prompt, _ in taught}
    assert all(is_for_rl(prompt) for prompt, _ in rl)
    assert dict(rl) == dict(draw(skill, 200, random.Random(0), for_rl=True))


@pytest.mark.parametrize(
    ("skill", "prompt", "answer"),
    [
        ("add", "12+34=", "46"),
        ("sort", "sort 3121=", "1123"),
        ("reverse", "rev abc=", "cba"),
        ("shift", "next az=", "ba"),
    ],
)
def test_answers_are_right(skill, prompt, answer):
    class Told(random.Random):
        values = {"add": [12, 34], "shift": [], "sort": [], "reverse": []}[skill]

        def randrange(self, *limits):
            return self.values.pop(0)

        def randint(self, low, high):
            return {"sort": 4, "reverse": 3, "shift": 2}[skill]

        def choice(self, letters):
            self.left = getattr(self, "left", list({"sort": "3121", "reverse": "abc", "shift": "az"}[skill]))
            return self.left.pop(0)

    assert SKILLS[skill](Told()) == (prompt, answer)


def test_only_answers_are_learnt():
    tokenizer = make_tokenizer()
    ids, labels = encode(tokenizer, [("1+2=", "3"), ("10+20=", "30")])
    assert (labels[0] != -100).sum() == 2  # the digit and the end
    assert (labels[1] != -100).sum() == 3
    assert tokenizer.decode(ids[1]).startswith("10+20=30")


def test_a_member_is_taught_and_kept_when_a_skill_is_half_learnt(tmp_path, monkeypatch):
    easy = lambda rng: (f"x{rng.randrange(1000)}=", "7")  # noqa: E731
    monkeypatch.setattr(pretraining, "SKILLS", {"seven": easy})
    monkeypatch.setattr("calibration.zoo.skills.SKILLS", {"seven": easy})
    monkeypatch.setattr(pretraining, "CEILING", 1.0)
    member, notes = Member("llama", 2, 32), []
    snapshots = pretrain(member, tmp_path, max_steps=200, on_note=notes.append)
    assert list(snapshots) == ["seven"]
    made = json.loads((snapshots["seven"] / "made.json").read_text())
    assert made["greedy"]["seven"] >= pretraining.TARGET
    policy = load_policy(str(snapshots["seven"]), device="cpu")
    probes = draw("seven", 100, random.Random("probe seven"), for_rl=True)
    assert greedy_accuracy(policy.model, policy.tokenizer, probes) == pytest.approx(made["greedy"]["seven"], abs=0.2)
    assert load_task(data=str(snapshots["seven"] / "rl.jsonl"), reward="exact").max_reward == 1
    assert pretrain(member, tmp_path, max_steps=0) == snapshots  # not taught again


def test_the_roster_is_as_varied_as_it_says():
    families = {member.family for member in ROSTER}
    assert families == set(FAMILIES)
    assert all(len([m for m in ROSTER if m.family == family]) == 2 for family in families)
    depths, widths = ({getattr(m, name) for m in ROSTER} for name in ("n_layers", "width"))
    assert (min(depths), max(depths)) == (4, 16)
    assert len(widths) >= 3
    assert len({m.seed for m in ROSTER}) >= 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_snapshot_is_loaded_with_the_tokenizer_it_was_taught_with(family, tmp_path):
    """`AutoTokenizer` exchanges it for Qwen2, which then reads prompts without their spaces."""
    tokenizer = make_tokenizer()
    make_model(Member(family, 2, 32), tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    text = "max 731 256="
    policy = load_member(tmp_path)
    assert policy.tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert policy.n_layers == 2
