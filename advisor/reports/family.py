"""A family report in words and tables: what all of its outputs say alike."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calibration.families import told
from calibration.rank_agreement import RELATIONS

if TYPE_CHECKING:
    from advisor.family import FamilyReport
    from calibration.over_members import MemberMean
    from calibration.rank_agreement import Related

SHORT = {
    "repeat": "another snapshot",
    "task": "another task",
    "member": "another policy",
    "member_and_task": "policy and task",
    "family": "another family",
    "family_and_task": "family and task",
}
RULES = {
    "family": "the others' curve (best layer)",
    "zone": "a layer of the others' best zone",
    "middle": "the middle layer",
    "prior": "best by the published depth profile",
    "random": "a random layer",
}
KINDS = {
    "shown": "Shown to transfer",
    "not_shown": "Not shown to transfer",
    "unknown": "Too few policies to say",
}
LARGEST_MATRIX = 12  # profiles, above which a matrix of all pairs is not read any more


@dataclass(frozen=True)
class Claim:
    """One thing that may transfer: ``kind`` is one of `KINDS`."""

    kind: str
    text: str


def title(report: "FamilyReport") -> str:
    return f"What the layers of a family have in common: {report.name}"


def headline(report: "FamilyReport") -> str:
    """The result in one line."""
    zone, kind = report.family.zone, report.family.verdict.kind
    where = f" Its best zone is {100 * zone.start:.0f} % to {100 * zone.end:.0f} % of the depth." if zone else ""
    return {
        "transfers": f"Where to train transfers between these policies.{where}",
        "no_better_than_middle": f"Better than a random layer, but not shown to be better than the middle one.{where}",
        "does_not_transfer": "Where to train is not shown to transfer between these policies.",
        "too_few_members": "Too few policies to say what transfers.",
    }[kind]


def sources_line(report: "FamilyReport") -> str:
    """How much was measured, and how."""
    family, n = report.family, len(report.profiles)
    whole = sum(p.is_whole for p in report.profiles)
    models, tasks = len(family.members), len({p.task for p in report.profiles})
    families = sorted({p.family for p in report.profiles})
    return (
        f"{n} measured {_s(n, 'profile')} of {models} {_s(models, 'policy', 'policies')} on {tasks} "
        f"{_s(tasks, 'task')} ({_s(len(families), 'family', 'families')} {', '.join(families)}), {whole} of them of "
        f"every layer; scored {'greedily' if family.decoding == 'greedy' else 'by sampling'}. C is the share of the "
        "gain of full-parameter training. Each interval is a 90 % one, over policies."
    )


def differences_line(report: "FamilyReport") -> str | None:
    """Where the sources were not measured alike; None where they were."""
    found = report.protocol_differences
    if not found:
        return None
    parts = (
        f"{name.replace('_', ' ')} ({' | '.join('not told' if v is None else str(v) for v in values)})"
        for name, values in found.items()
    )
    return "The sources were measured under different protocols, which changes which layers are good: " + "; ".join(
        parts
    )


def claims(report: "FamilyReport") -> list[Claim]:
    """What transfers and what does not, with its numbers: order, order beyond depth, and best layer by relation, then
    the best zone and the curve on policies left out."""
    found = []
    for r in report.family.related:
        about = RELATIONS[r.relation]
        ceiling = f", of at most {r.ceiling.value:.2f} by the agreement of seeds" if r.ceiling else ""
        found.append(_claim(r.spearman, f"The order of layers ({about}): ρ {told(r.spearman)}{ceiling}; {_of(r)}."))
        if r.without_depth is not None:
            text = f"The order beyond depth ({about}): ρ {told(r.without_depth)} with a quadratic in depth taken out."
            found.append(_claim(r.without_depth, text))
        text = (
            f"The best layer ({about}): taken over, it loses {r.regret.value:.2f} C: "
            f"{told(r.better_than_random, sign=False)} less than a random one, "
            f"{told(r.better_than_middle, sign=False)} less than the middle one."
        )
        found.append(_claim(r.better_than_random, text))
    zone = report.family.zone
    if zone and zone.left_out:
        more = told(zone.left_out, sign=False)
        text = f"The best zone: on policies it was not chosen on, its layers bring {more} C more than others."
        found.append(_claim(zone.left_out, text))
    for rule, what in (("random", "a random layer"), ("middle", "the middle layer")):
        mean = report.family.better_than(rule)
        if mean is not None:
            text = f"The curve over {what}: on policies left out, its pick loses {told(mean, sign=False)} C less."
            found.append(_claim(mean, text))
    return found


def by_kind(report: "FamilyReport") -> list[tuple[str, list[str]]]:
    """(heading, claims) of each kind that there is."""
    found = claims(report)
    kinds = [(KINDS[kind], [c.text for c in found if c.kind == kind]) for kind in KINDS]
    return [(heading, texts) for heading, texts in kinds if texts]


def zone_line(report: "FamilyReport") -> str | None:
    """The best zone with its interval; None where there is none."""
    zone = report.family.zone
    if zone is None:
        return None
    centre = (zone.start + zone.end) / 2
    ends = "no interval below three policies"
    if zone.centre_low is not None:
        ends = f"90 % interval {zone.centre_low:.2f} to {zone.centre_high:.2f}"
    judged = f"; on policies that it was not chosen on, {told(zone.left_out)}" if zone.left_out else ""
    return (
        f"Best zone: relative depth {zone.start:.2f} to {zone.end:.2f} (centre {centre:.2f}, {ends}). Its layers bring "
        f"{told(zone.advantage)} C more than those outside{judged}."
    )


def advice_line(report: "FamilyReport") -> str | None:
    """The recommendation for the member that was asked about; None where none was."""
    advice = report.advice
    if advice is None:
        return None
    rule = {
        "family": "where the family's curve is highest",
        "middle": "the middle layer",
        "prior": "best by the published depth profile",
    }[advice.rule]
    ends = "no interval below three policies"
    if advice.low is not None:
        ends = f"90 % interval for one more policy {advice.low:.2f} to {advice.high:.2f}"
    zone = f"; its best zone is layers {advice.zone[0]} to {advice.zone[-1]}" if advice.zone else ""
    own = "There" if advice.rule == "family" else f"The family's curve is highest at layer {advice.family_layer}, where"
    text = (
        f"For {report.advised} with {advice.n_layers} layers (numbered from 0): take layer {advice.layer}, {rule}. "
        f"{own} C {advice.contribution:.2f} is expected ({ends}){zone}."
    )
    if report.family.verdict.kind != "transfers":
        lost = (
            "; of the rules that name one layer this one lost least on policies left out" if report.family.rules else ""
        )
        text += f" That this beats other rules is not shown{lost}. Measure it: advisor recommend, then advisor verify."
    if advice.unlike:
        text += f" An extrapolation: {advice.unlike}."
    return text


def relations_table(report: "FamilyReport") -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and one row a relation."""
    headings = ("from one to", "pairs", "policies", "ρ", "ceiling", "ρ without depth", "best layer loses")
    headings += ("random", "middle")
    rows = [
        (
            RELATIONS[r.relation],
            str(r.spearman.n),
            str(r.spearman.members),
            told(r.spearman),
            f"{r.ceiling.value:.2f}" if r.ceiling else "–",
            told(r.without_depth) if r.without_depth else "–",
            told(r.regret, sign=False),
            f"{r.random.value:.2f}",
            f"{r.middle.value:.2f}",
        )
        for r in report.family.related
    ]
    return headings, rows


def rules_table(report: "FamilyReport") -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and one row a rule: what it loses on policies left out, and beside the curve's pick."""
    rows = []
    for rule, mean in report.family.rules.items():
        beside = report.family.better_than(rule) if rule != "family" else None
        rows.append((RULES[rule], told(mean, sign=False), told(beside) if beside else ""))
    return ("rule", "C lost on policies left out", "the curve's pick loses less by"), rows


def profiles_table(report: "FamilyReport") -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and one row a profile, those that are only predicted last."""
    rows = [
        (
            letter,
            p.model,
            p.family,
            p.task,
            f"{len(p.values)} of {p.n_layers}",
            f"{p.best} ({p.values[p.best]:.2f})",
            "–" if p.seed_agreement is None else f"{p.seed_agreement:.2f}",
            "predicted, not measured" if p.predicted else f"measured: {p.source}",
        )
        for letter, p in zip(letters(report), [*report.profiles, *report.predicted], strict=True)
    ]
    return ("", "policy", "family", "task", "layers", "best (C)", "seeds' ρ", "source"), rows


def letters(report: "FamilyReport") -> list[str]:
    """A short name of each profile: A, B, …, Z, A1, …"""
    n = len(report.profiles) + len(report.predicted)
    return [chr(65 + i % 26) + (str(i // 26) if i >= 26 else "") for i in range(n)]


def matrix(report: "FamilyReport") -> list[list[float | None]] | None:
    """Spearman correlation of all profiles, (n, n), None where too little is shared; None for too many profiles."""
    profiles = report.profiles
    if not 2 <= len(profiles) <= LARGEST_MATRIX:
        return None
    at = {id(p): i for i, p in enumerate(profiles)}
    found: list[list[float | None]] = [[None] * len(profiles) for _ in profiles]
    for pair in report.family.pairs:
        i, j = at[id(pair.a)], at[id(pair.b)]
        found[i][j] = found[j][i] = pair.spearman
    return found


def published_lines(report: "FamilyReport") -> list[str]:
    """What the published study says of agreement, and what its tables show of benchmarks."""
    lines, said = [], report.published
    if said:
        lines.append(
            f"As published, on {said['measured_on']}: ρ {said['two_math_sets']:.2f} between training on two sets of "
            f"mathematics, {said['math_to_code']:.2f} between mathematics and code."
        )
        lines.append(
            "Most published models list a few layers only, chosen by the authors; every model was trained on one task "
            "with one seed, so its noise is not known."
        )
    return lines


def _claim(mean: "MemberMean", text: str) -> Claim:
    return Claim("unknown" if mean.low is None else "shown" if mean.above_zero else "not_shown", text)


def _of(r: "Related") -> str:
    n, members = r.spearman.n, r.spearman.members
    return f"{n} {_s(n, 'pair')} of {members} {_s(members, 'policy', 'policies')}"


def _s(n: int, one: str, many: str | None = None) -> str:
    return one if n == 1 else many or f"{one}s"
