"""When a ranking may be given, and when the honest answer is no."""

from dataclasses import dataclass

import numpy as np

from probes.registry import Probe
from probes.rollouts import Rollouts
from probes.table import LayerTable, varies

MIN_GROUPS = 4  # two halves of two groups, the least that cross-half statistics can use
SOLVED_SHARE = 0.99  # of the best possible reward
RANDOM_EXCESS = 1.1  # largest singular value over the random edge; random matrices of side 64 stay below 1.05


@dataclass(frozen=True)
class Verdict:
    """``kind`` is one of the words below, ``text`` says it to the user; only "uncalibrated" comes with a ranking.

    uncalibrated, constant_reward, no_reward_spread, no_headroom, random_weights, indistinguishable
    """

    kind: str
    text: str

    @property
    def has_ranking(self) -> bool:
        return self.kind == "uncalibrated"


def judge_reward(
    rollouts: Rollouts, headroom: np.ndarray | None, decoding: str, max_reward: float | None
) -> Verdict | None:
    """A verdict that the rewards alone decide, before anything else is measured; None if they carry signal.

    `headroom` are held-out rewards under `decoding` (n,), None if not yet measured.
    """
    rewards = rollouts.rewards
    if len(rewards) == 0:
        return Verdict(
            "constant_reward",
            f"The reward returned None for all {rollouts.n_completions} completions: "
            "nothing is scored. Check the reward function and its columns.",
        )
    if np.ptp(rewards) == 0:
        if max_reward is not None and rewards[0] >= SOLVED_SHARE * max_reward:
            return Verdict(
                "no_headroom",
                f"All {len(rewards)} sampled completions already score {rewards[0]:g}, the best "
                "possible: there is nothing to gain. Choose a harder task.",
            )
        return Verdict(
            "constant_reward",
            f"All {len(rewards)} sampled completions score {rewards[0]:g}: without any "
            "difference in reward there is no policy gradient. Check the reward and the prompt style, or "
            "choose an easier task or a stronger policy.",
        )
    solved = None if max_reward is None else SOLVED_SHARE * max_reward
    if solved is not None and rewards.mean() >= solved:
        return Verdict(
            "no_headroom",
            f"The {len(rewards)} sampled completions already score {rewards.mean():.3g} of {max_reward:g} on average: "
            "there is nothing to gain. Choose a harder task.",
        )
    if solved is not None and headroom is not None and len(headroom) and headroom.mean() >= solved:
        return Verdict(
            "no_headroom",
            f"The policy already scores {headroom.mean():.3g} of {max_reward:g} on "
            f"{len(headroom)} held-out prompts ({decoding}): there is nothing to gain. Choose a harder task.",
        )
    found = len(rollouts.informative)
    if found < MIN_GROUPS:
        return Verdict(
            "no_reward_spread",
            f"Only {found} of {len(rollouts.groups)} prompt groups have completions with "
            f"different rewards, at least {MIN_GROUPS} are needed: the policy gradient is almost everywhere 0. "
            "Raise --group-size, --max-prompts or --temperature, or choose a task nearer the policy's level.",
        )
    return None


def judge_table(table: LayerTable, probes: list[Probe], decoding: str) -> Verdict:
    """The verdict from the layer table."""
    excess = table.columns.get("spectral_excess")
    if excess is not None and excess.max() < RANDOM_EXCESS:
        return Verdict(
            "random_weights",
            f"No weight matrix has structure beyond random numbers (largest singular value "
            f"at most {excess.max():.2f} times the random edge in every layer): these look like untrained "
            "weights. Check that the checkpoint was loaded whole.",
        )
    voting = [c.name for p in probes for c in p.columns if c.vote(decoding) and c.name in table.columns]
    if not voting:
        return Verdict(
            "indistinguishable",
            f"No measured column has a vote under {decoding} decoding at this effort, so there is nothing to rank by.",
        )
    if not any(varies(table.columns[name]) for name in voting):
        return Verdict(
            "indistinguishable", "No measured quantity tells any layer from another, so there is nothing to rank by."
        )
    return Verdict(
        "uncalibrated",
        "Uncalibrated ranking: the order averages the published depth profile with the probes. "
        "No predictor has been fitted yet, so scores are not contributions and carry no interval.",
    )
