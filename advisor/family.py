"""A family report: profiles from folders of runs, from the corpus and from the published study, and what they say."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from advisor.contributions import RESULT_FILES
from advisor.store import SCHEMA_VERSION
from calibration.families import Advice, Family
from calibration.over_members import MemberMean
from calibration.profiles import (
    PUBLISHED,
    Profile,
    benchmark_agreement,
    compared_protocol,
    gain_is_sure,
    load_families,
    protocol_differences,
    published_correlations,
)
from calibration.rank_agreement import PairAgreement, Related, transfer_of
from probes.errors import UsageError
from probes.registry import DECODINGS

RANKING = "ranking.json"
_FILES = (*RESULT_FILES, RANKING)


@dataclass(frozen=True)
class FamilyReport:
    """What is learnt of some measured profiles, with those that are shown or named beside them.

    ``predicted`` are rankings that were not measured; ``left_out`` says why sweeps have no profile, by name; ``advice``
    is for the model ``advised``, None where none was asked about.
    """

    name: str
    family: Family
    predicted: list[Profile]
    left_out: dict[str, str]
    advised: str | None = None
    advice: Advice | None = None

    @property
    def profiles(self) -> list[Profile]:
        return self.family.profiles

    @property
    def protocol_differences(self) -> dict[str, list[Any]]:
        return protocol_differences(self.profiles)

    @property
    def benchmarks(self) -> list[dict[str, Any]]:
        """Agreement between benchmarks of the published sweeps among the profiles."""
        return benchmark_agreement(p.model for p in self.profiles if p.source == PUBLISHED)

    @property
    def published(self) -> dict[str, Any] | None:
        """What the published study says of agreement itself, where its sweeps are among the profiles."""
        return published_correlations() if any(p.source == PUBLISHED for p in self.profiles) else None

    def as_dict(self) -> dict[str, Any]:
        """The content of ``family.json``."""
        from advisor.reports.family import claims, headline

        family = self.family
        differences = {rule: _plain(family.better_than(rule)) for rule in family.rules if rule != "family"}
        found = {
            "schema_version": SCHEMA_VERSION,
            "kind": "family",
            "name": self.name,
            "decoding": family.decoding,
            "verdict": {**asdict(family.verdict), "headline": headline(self)},
            "claims": [asdict(claim) for claim in claims(self)],
            "members": family.members,
            "profiles": [_profile(p) for p in self.profiles],
            "predicted": [_profile(p) for p in self.predicted],
            "left_out": self.left_out,
            "protocol_differences": self.protocol_differences,
            "relations": [_related(r) for r in family.related],
            "pairs": [_pair(p) for p in family.pairs],
            "benchmarks": self.benchmarks,
            "published_correlations": self.published,
            "zone": family.zone and {name: _plain(value) for name, value in vars(family.zone).items()},
            "curve": [
                dict(zip(("relative_depth", "contribution", "low", "high"), at, strict=True)) for at in family.curve
            ],
            "left_out_policies": {
                "regret": {rule: _plain(mean) for rule, mean in family.rules.items()},
                "better_than": differences,
                "trials": [
                    {**{k: v for k, v in vars(t).items() if k != "profile"}, "profile": t.profile.name}
                    for t in family.trials
                ],
            },
            "advice": self.advice and {"model": self.advised, **asdict(self.advice)},
        }
        return _rounded(found)

    def report(self, folder: str | Path) -> None:
        """Write ``family.json``, ``report.md`` and ``report.html`` into `folder`."""
        from advisor.reports import write_family

        write_family(self, Path(folder))


def family_report(
    folders: Sequence[str | Path] = (),
    families: Sequence[str] = (),
    *,
    decoding: str = "greedy",
    advise: tuple[str, int] | None = None,
) -> FamilyReport:
    """Everything that was measured in `folders` of runs and of `families`, under one decoding.

    `families` are names of `calibration.profiles.load_families`. `advise` is a model that was not measured, with its
    number of layers. Raises `UsageError` for folders without results, unknown names, and where nothing was measured.
    """
    if decoding not in DECODINGS:
        from probes.errors import unknown_name

        raise unknown_name("decoding", decoding, DECODINGS, "Pass one of these as --decoding.")
    profiles, left_out = load_families(families, decoding)
    for folder in dict.fromkeys(Path(folder).expanduser().resolve() for folder in folders):
        found, without = read_folder(Path(folder).expanduser(), decoding)
        profiles, left_out = profiles + found, left_out | without
    profiles = _told_apart(_once(profiles))
    measured = [p for p in profiles if not p.predicted]
    if not measured:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items()) or "rankings alone are predictions"
        raise UsageError(
            f"Nothing was measured here under {decoding} decoding ({reasons}): give folders of advisor sweep or "
            "advisor verify, --family NAME or --published."
        )
    family = Family(measured, decoding)
    name, n_layers = advise or (None, None)
    advice = None if n_layers is None else family.advise(n_layers)
    title = " and ".join([*families, *(["your runs"] if folders else [])])
    return FamilyReport(title, family, [p for p in profiles if p.predicted], left_out, name, advice)


def result_file(folder: Path) -> Path:
    """The result file of a run's folder. Raises `UsageError` with what is there where there is none."""
    found = next((file for name in _FILES if (file := folder / name).is_file()), None)
    if found is not None:
        return found
    wanted = "give output folders of advisor sweep, verify or recommend"
    if not folder.is_dir():
        raise UsageError(f"'{folder}' is not a folder: {wanted}.")
    inside = sorted({file.parent for name in _FILES for file in folder.glob(f"*/{name}")})
    if inside:
        raise UsageError(f"'{folder}' holds no results itself, but these do: give {' '.join(map(str, inside))}.")
    there = ", ".join(sorted(p.name for p in folder.iterdir())[:4]) or "nothing"
    raise UsageError(f"'{folder}' holds no results (it has: {there}): {wanted}.")


def read_folder(folder: Path, decoding: str) -> tuple[list[Profile], dict[str, str]]:
    """Profiles of a run's folder and of the verifications inside it; and why others have none, by folder."""
    files = [result_file(folder), *sorted(folder.glob("verification*/verification.json"))]
    profiles, left_out = [], {}
    for file in files:
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
            found = _predicted(told, file, decoding) if file.name == RANKING else _measured(told, file, decoding)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"'{file}' is not a result that this program reads ({type(error).__name__}: {error}): run the same "
                "command again, which keeps what is finished, or leave the folder out."
            ) from error
        if isinstance(found, str):
            left_out[str(file.parent)] = found
        else:
            profiles.append(found)
    return profiles, left_out


def _measured(told: dict[str, Any], file: Path, decoding: str) -> Profile | str:
    """The profile of a sweep or verification, or why it has none."""
    if decoding not in told:
        return f"nothing was trained (verdict {told['verdict']['kind']})"
    under = told[decoding]
    if under["full"] is None or under["full"]["gain"] is None:
        return "there is no full-parameter training to take shares of"
    if not gain_is_sure(under["full"]["gain"], under["full"]["gain_low"]):
        return f"the gain of full-parameter training is not known well enough, scored {decoding}"
    single = [la for la in under["layers"] if isinstance(la["layer"], int) and la["contribution"] is not None]
    if not single:
        return "no single layer has a contribution"
    return Profile(
        **_who(told, decoding),
        values={la["layer"]: la["contribution"] for la in single},
        ends={la["layer"]: (la["low"], la["high"]) for la in single},
        seeds=len(told["protocol"]["seeds"]),
        seed_agreement=under["seed_agreement"],
        source=str(file.parent),
        protocol=compared_protocol(told["protocol"]),
    )


def _predicted(told: dict[str, Any], file: Path, decoding: str) -> Profile | str:
    """What a recommendation expects, or why it expects nothing."""
    if told["predictor"] is None:
        return f"a recommendation without ranking (verdict {told['verdict']['kind']})"
    if told["protocol"]["decoding"] != decoding:
        return f"a recommendation for {told['protocol']['decoding']} decoding"
    return Profile(
        **_who(told, decoding),
        values={la["layer"]: la["contribution"] for la in told["layers"]},
        ends={la["layer"]: (la["low"], la["high"]) for la in told["layers"]},
        source=str(file.parent),
        predicted=True,
    )


def _who(told: dict[str, Any], decoding: str) -> dict[str, Any]:
    model, task = told["model"], told["task"]
    return {
        "model": model["name"].rstrip("/").rsplit("/", 1)[-1],
        "member": model["name"],
        "family": _family(model.get("class", "unknown")),
        "task": task["name"] if task else "no task",
        "n_layers": model["n_layers"],
        "decoding": decoding,
    }


def _once(profiles: list[Profile]) -> list[Profile]:
    """Profiles of runs that were given twice, as their own folder and inside another, counted once."""
    found: dict[tuple[str, ...], Profile] = {}
    for p in profiles:
        found.setdefault((p.source, p.name, p.family, str(p.predicted)), p)
    return list(found.values())


def _family(model_class: str) -> str:
    """The family as the corpus names it: transformers' type of models of this class."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    types = [kind for kind, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items() if name == model_class]
    named = [kind for kind in types if model_class.lower().startswith(kind.replace("_", "").replace("-", ""))]
    return max(named, key=len) if named else types[0] if types else model_class.lower()


def _told_apart(profiles: list[Profile]) -> list[Profile]:
    """The same profiles, those of one name also named after the folder that they are from."""
    names = [(p.name, p.predicted) for p in profiles]
    return [
        replace(p, model=f"{p.model} ({Path(p.source).name})") if names.count((p.name, p.predicted)) > 1 else p
        for p in profiles
    ]


def _profile(p: Profile) -> dict[str, Any]:
    same = ("name", "model", "member", "family", "task", "n_layers", "source", "seeds", "seed_agreement", "protocol")
    layers = []
    for k, depth in zip(p.layers, p.depths, strict=True):
        low, high = p.ends.get(k, (None, None))
        place = {"layer": k, "relative_depth": float(depth)}
        layers.append({**place, "contribution": p.values[k], "low": low, "high": high})
    return {**{name: getattr(p, name) for name in same}, "whole": p.is_whole, "best": p.best, "layers": layers}


def _pair(p: PairAgreement) -> dict[str, Any]:
    there, back = transfer_of(p.a, p.b), transfer_of(p.b, p.a)
    figures = {name: value for name, value in vars(p).items() if name not in ("a", "b")}
    return {"a": p.a.name, "b": p.b.name, **figures, "regret_a_to_b": there.regret, "regret_b_to_a": back.regret}


def _related(r: Related) -> dict[str, Any]:
    return {name: _plain(value) for name, value in vars(r).items()}


def _plain(value: Any) -> Any:
    return asdict(value) if isinstance(value, MemberMean) else value


def _rounded(value: Any) -> Any:
    """Six decimals, everywhere."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return round(float(value), 6) if isinstance(value, float) else value
