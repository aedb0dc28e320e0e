"""Sentences and small figures that every report shares, so that they say the same."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from advisor.recommendation import Recommendation
    from calibration.race import Race

_BLOCKS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"

BASELINE_NAMES = {
    "middle": "middle layer",
    "depth_prior": "best by published depth profile",
    "first": "first layer",
    "last": "last layer",
    "largest_grad_norm": "largest gradient norm",
    "largest_relative_grad_norm": "largest relative gradient norm (Auto-RGN)",
    "largest_fisher": "largest Fisher",
    "largest_spectral_snr": "largest Spectrum signal-to-noise",
    "largest_block_influence": "largest block influence",
}


def bar(value: float, width: int = 12) -> str:
    """A bar of eighths for a value from 0 to 1."""
    eighths = round(max(0.0, min(1.0, value)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_BLOCKS[rest] if rest else "")).ljust(width)


def sparkline(values) -> str:
    """One character a layer, lowest to highest."""
    low, high = min(values), max(values)
    scale = (len(_LEVELS) - 1) / (high - low) if high > low else 0
    return "".join(_LEVELS[round((v - low) * scale)] for v in values)


def number(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return "–"
    return f"{value:.3g}" if abs(value) < 1e4 else f"{value:.2e}"


def headline(recommendation: "Recommendation") -> str:
    """The result in one line."""
    rec = recommendation
    n = rec.model["n_layers"]
    if rec.pick:
        layers = ", ".join(map(str, rec.pick))
        share = sum(rec.model["layer_parameters"][k] for k in rec.pick)
        of = f" of {_count(rec.model['parameters'])}" if "parameters" in rec.model else ""
        return f"Train layer {layers} of {n} (numbered from 0): {_count(share)}{of} parameters{_step(rec)}."
    fallback = rec.fallback
    if fallback["layer"] is None:
        return f"No layer is recommended: {fallback['why']}."
    return (
        f"No layer can be told from another. If you train one all the same, take layer {fallback['layer']} of {n}, "
        f"{fallback['why']}."
    )


def _count(parameters: int) -> str:
    return f"{parameters / 1e6:.1f} M" if parameters >= 1e6 else f"{parameters:,}"


def _step(rec: "Recommendation") -> str:
    """What a training step of a single pick takes, where it was counted."""
    if len(rec.pick) != 1 or rec.step_costs is None:
        return ""
    return f"; beside sampling a step takes {rec.step_costs[rec.pick[0]]:.0%} of what training all takes"


OUT = {None: "goes on", "behind": "surely behind", "halved": "halved", "rate": "other rate is better"}


def predictor_line(recommendation: "Recommendation") -> str | None:
    """What the prediction was made by; None where there is none."""
    if recommendation.predicted is None:
        return None
    by = recommendation.predicted.by
    return (
        f"{by['candidate']} on {by['sweeps']} sweeps of {by['policies']} policies "
        f"({', '.join(by['families'])}), data {by['data_sha256'][:8]}"
    )


def known_lines(recommendation: "Recommendation") -> list[str]:
    """One line a sweep of this policy that is known already."""
    return [
        f"{sweep.source}, {sweep.task}: measured contributions, best first: "
        + ", ".join(f"layer {k} {sweep.contributions[k]:.2f}" for k in sweep.order[:5])
        + (f" and {len(sweep.order) - 5} more" if len(sweep.order) > 5 else "")
        for sweep in recommendation.known
    ]


def expected(layer: dict) -> str:
    """ "0.81 (0.55…1.05)" """
    return f"{layer['contribution']:.2f} ({layer['low']:.2f}…{layer['high']:.2f})"


def protocol_line(protocol: dict) -> str:
    """The protocol as "name value, name value"; that of the race comes with the race."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in protocol.items() if name != "warmup")


def race_lines(race: "Race") -> list[str]:
    """One line a rung: who led, how many stopped and why."""
    lines = []
    for rung in race.rungs:
        leader = rung.standings[0]
        outs = [s.out for s in rung.standings if s.out]
        parts = [f"{outs.count(kind)} {OUT[kind]}" for kind in ("behind", "rate", "halved") if kind in outs]
        stopped = f"; {len(outs)} of {len(rung.standings)} stop ({', '.join(parts)})" if outs else ""
        lines.append(
            f"step {rung.step}: layer {leader.layer} leads with {leader.score:.2f} at rate {leader.rate:g} "
            f"(base {rung.base:.2f}){stopped}"
        )
    return lines


def race_summary(race: "Race", settings: dict) -> str:
    """What the race took, how it was run, and why it ended."""
    rates = ", ".join(f"{rate:g}" for rate in settings["learning_rates"])
    source = "the base policy's completions" if settings["base_steps"] else "each layer's own completions"
    n_prompts, seconds = (race.rungs[-1].n_prompts, race.rungs[-1].seconds) if race.rungs else (0, 0)
    broke = f", {len(race.broke)} broke down" if race.broke else ""
    unpaid = f", {len(race.not_paid)} not trained for want of time" if race.not_paid else ""
    apart = f" Layers were trained one after another: {race.why_apart}." if race.why_apart else ""
    size = f"{settings['prompts_per_step']} prompts × {settings['group_size']} completions"
    scored = "Gains in expected reward on" if race.scored_by == "expected reward" else "Gains on"
    return (
        f"{race.entered} warm-ups (layers at their rates){broke}{unpaid}; {race.arm_steps} steps of a layer in "
        f"{seconds:.0f} s, ended by {race.ended}. {scored} {n_prompts} validation prompts, with 90 % intervals over "
        f"prompts. Steps of {size}, rates {rates}, trained on {source}.{apart}"
    )


def interval(value: float, low: float, high: float) -> str:
    """ "+0.12 (+0.05…+0.19)" """
    return f"{value:+.2f} ({low:+.2f}…{high:+.2f})"


def reward_line(recommendation: "Recommendation") -> str | None:
    """What the rollouts showed, or None at static effort."""
    r = recommendation.reward
    if r is None:
        return None
    text = (
        f"{r['completions']} completions of {r['groups']} prompts, mean reward {number(r['mean'])}; "
        f"{r['groups'] - r['groups_with_spread']} of {r['groups']} groups ({r['share_without_spread']:.0%}) without "
        f"reward spread; {r['share_cut']:.0%} of completions cut at {recommendation.protocol['max_new_tokens']} tokens"
    )
    if r["held_out_mean"] is not None:
        error = f" ± {number(r['held_out_standard_error'])}" if r["held_out_standard_error"] is not None else ""
        text += (
            f"; held-out reward {number(r['held_out_mean'])}{error} (standard error, {r['held_out_n']} prompts, "
            f"{recommendation.protocol['decoding']})"
        )
    return text + "."


def cost_line(recommendation: "Recommendation") -> str:
    """Time and memory of the run."""
    cost = recommendation.cost
    memory = f", peak memory {cost['peak_memory_bytes'] / 2**30:.1f} GiB" if cost["peak_memory_bytes"] else ""
    seconds = {k: v for k, v in cost["seconds"].items() if k != "total" and v >= 0.05}
    parts = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())
    return f"{cost['seconds']['total']:.0f} s{memory} (seconds: {parts})."


def baselines_line(recommendation: "Recommendation") -> str:
    """What simpler rules would pick."""
    return ", ".join(f"{BASELINE_NAMES[name]} {k}" for name, k in recommendation.baselines.items())
