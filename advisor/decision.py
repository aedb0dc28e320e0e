"""When a ranking may be given, and when the honest answer is no."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from probes.rollouts import Rollouts
from probes.table import LayerTable, varies

if TYPE_CHECKING:
    from advisor.contributions import Contributions
    from advisor.predicting import Predicted
    from calibration.contribution import Estimate
    from calibration.race import Race

MIN_GROUPS = 4  # two halves of two groups, the least that cross-half statistics can use
SOLVED_SHARE = 0.99  # of the best possible reward
_NO_GAIN = "Full-parameter training changes the score by {}: no gain is shown that a layer could have a share of."
_MORE = "Train longer, try other learning rates, or choose another task."
HALF = 0.5  # of the full-parameter gain: the least that a confirmed pick may bring
RANDOM_EXCESS = 1.1  # largest singular value over the random edge; random matrices of side 64 stay below 1.05


@dataclass(frozen=True)
class Verdict:
    """``kind`` is one of the words below, ``text`` says it to the user; only "predicted" comes with a ranking.

    predicted, constant_reward, no_reward_spread, no_headroom, random_weights, indistinguishable;
    after training: confirmed, no_better_than_middle, not_confirmed, no_headroom, broke_down, measured
    """

    kind: str
    text: str

    @property
    def has_ranking(self) -> bool:
        return self.kind == "predicted"


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
            "Use larger groups, more prompts or a higher temperature, or choose a task nearer the policy's level.",
        )
    return None


def looks_trained(table: LayerTable) -> bool:
    """Whether some weight matrix has structure beyond random numbers, as far as that was measured."""
    excess = table.columns.get("spectral_excess")
    return excess is None or excess.max() >= RANDOM_EXCESS


def judge_table(table: LayerTable) -> Verdict | None:
    """A verdict of no that the layer table alone decides; None where layers can be told from each other."""
    if not looks_trained(table):
        excess = table.columns["spectral_excess"]
        return Verdict(
            "random_weights",
            f"No weight matrix has structure beyond random numbers (largest singular value "
            f"at most {excess.max():.2f} times the random edge in every layer): these look like untrained "
            "weights. Check that the checkpoint was loaded whole.",
        )
    measured = [values for name, values in table.columns.items() if name != "relative_depth"]
    if not any(map(varies, measured)):
        return Verdict(
            "indistinguishable", "No measured quantity tells any layer from another, so there is nothing to rank by."
        )
    return None


def judge_prediction(predicted: "Predicted", race: "Race | None" = None) -> Verdict:
    """What is expected of the pick, on what grounds, and what stands against it."""
    said, by = predicted.prediction, predicted.by
    pick = said.order[0]
    n = len(said.advantage)
    text = (
        f"Training layer {pick} alone is expected to bring {said.contribution[pick]:.2f} ({said.low[pick]:.2f} to "
        f"{said.high[pick]:.2f}) of what full-parameter training brings. Chance that it is the best layer: "
        f"{said.p_best[pick]:.0%} (a random one {1 / n:.0%}); among the best three: {said.p_top3[pick]:.0%}. Predicted "
        f"from {by['sweeps']} sweeps of {by['policies']} policies ({len(by['families'])} model families)."
    )
    if said.unlike:
        more = f"; {len(said.unlike) - 2} more in the report" if len(said.unlike) > 2 else ""
        text += f" The sweeps have nothing like {'; '.join(said.unlike[:2])}{more}: intervals are wider for it."
    if race is not None and race.winner is not None:
        rung, winner = race.rungs[-1], race.winner
        text += (
            f" In the race layer {winner.layer} scored best after {rung.step} steps: {winner.score:.2f}, "
            f"{_signed(winner.gain)} over the base policy on {rung.n_prompts} validation prompts."
        )
    return Verdict("predicted", text)


def judge_race(race: "Race") -> Verdict | None:
    """A verdict of no from a race of warm-ups: none is sound, or none is shown to raise the score; None otherwise."""
    if race.winner is None:
        reason = next(iter(race.broke.values()), "")
        return Verdict("broke_down", f"Every warm-up broke down ({reason}). Try lower rates with --race-rates.")
    rung, winner = race.rungs[-1], race.winner
    score = f"Layer {winner.layer} scores {winner.score:.2f} after {rung.step} steps of training it alone"
    gain = f"{_signed(winner.gain)} over the base policy on {rung.n_prompts} validation prompts"
    if not winner.gain.above_zero:
        return Verdict(
            "indistinguishable",
            f"No warm-up is shown to raise the score. {score}, {gain}, and no other more. Warm up longer, try other "
            "learning rates, or choose another task.",
        )
    return None


def judge_base(held_out: list[float | None], decoding: str, max_reward: float | None) -> Verdict | None:
    """The verdict that the base policy's held-out scores alone decide; None if there is room above them."""
    scores = [score for score in held_out if score is not None]
    if not scores:
        return Verdict("constant_reward", "The reward returned None for every held-out prompt: nothing can be scored.")
    mean = float(np.mean(scores))
    if max_reward is None or mean < SOLVED_SHARE * max_reward:
        return None
    return Verdict(
        "no_headroom",
        f"The base policy already scores {mean:.3g} of {max_reward:g} on {len(scores)} held-out prompts ({decoding}): "
        "there is nothing to gain. Choose a harder task.",
    )


def judge_pick(found: "Contributions") -> Verdict:
    """Whether training the pick did what it was picked for, by 90 % intervals under the protocol's decoding.

    confirmed: it gains, brings at least half of what full-parameter training brings (the interval reaches 0.5), and
    scores above the middle layer (or is it). no_better_than_middle: all but the last. not_confirmed: else.
    no_headroom: full-parameter training shows no gain to have a share of.
    """
    results, scores = found.results(), found.scores()
    roles = {role: arm for arm, names in found.roles.items() for role in names}
    pick, middle, full = (results.get(roles.get(role)) for role in ("pick", "middle", "full"))
    if pick.score is None:
        return Verdict("broke_down", f"Every run of the pick broke down: {pick.failures[0]}")
    gain, share = pick.gain, pick.contribution
    said = f"Training {pick.arm} alone changes the score by {_signed(gain)}"
    if full is not None:
        if full.score is None:
            return Verdict("broke_down", f"Every run of full-parameter training broke down: {full.failures[0]}")
        if share is None:
            return Verdict(
                "no_headroom",
                f"{_NO_GAIN.format(_signed(full.gain))} {said}. {_MORE}",
            )
        said += f", {share.value:.2f} ({share.low:.2f} to {share.high:.2f}) of what full-parameter training brings"
    if not gain.above_zero:
        return Verdict("not_confirmed", f"{said}: no gain is shown.")
    if pick.failures:
        n = len(found.protocol["seeds"])
        return Verdict("not_confirmed", f"{said}, but {len(pick.failures)} of its {n} seeds broke down.")
    if share is not None and share.high < HALF:
        return Verdict("not_confirmed", f"{said}: less than half of it.")
    others = [arm for arm, names in found.roles.items() if names == ["also"] and results[arm].score]
    better = [arm for arm in others if scores.difference(arm, pick.arm).above_zero]
    if better:
        said += f". Of those trained beside it, {', '.join(better)} scored higher"
    if pick.arm == middle.arm:
        return Verdict("confirmed", f"{said}. The pick is the middle layer itself.")
    if middle.score is None:
        return Verdict("confirmed", f"{said}. Every run of the middle layer broke down.")
    ahead = scores.difference(pick.arm, middle.arm)
    compared = f"The middle layer ({middle.layers[0]}) scores {_signed(ahead, negate=True)} beside it"
    if ahead.above_zero:
        return Verdict("confirmed", f"{said}. {compared}.")
    return Verdict("no_better_than_middle", f"{said}. {compared}: the pick is not shown to be better.")


def judge_sweep(found: "Contributions") -> Verdict:
    """What a sweep shows as a whole."""
    full = found.results().get("full")
    if full is not None and full.score is None:
        return Verdict("broke_down", f"Every run of full-parameter training broke down: {full.failures[0]}")
    layers = [result for result in found.results().values() if result.layers is not None]
    if all(result.score is None for result in layers):
        return Verdict("broke_down", f"Every run of every layer broke down: {layers[0].failures[0]}")
    if full is not None and not full.gain.above_zero:
        return Verdict(
            "no_headroom",
            f"{_NO_GAIN.format(_signed(full.gain))} {_MORE}",
        )
    agreement = found.sweep.seed_agreement(found.decoding)
    alike = "" if agreement is None else f" Spearman correlation of the layers' scores between seeds: {agreement:.2f}."
    return Verdict("measured", f"{len(found.sweep.arms)} arms trained.{alike}")


def _signed(estimate: "Estimate", negate: bool = False) -> str:
    """ "+0.12 (+0.05 to +0.19)"; negated where the other side is spoken of."""
    value, low, high = estimate.value, estimate.low, estimate.high
    if negate:
        value, low, high = -value, -high, -low
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
