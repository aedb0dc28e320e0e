"""Every JSON output is what its schema says, down to the last field; a field more or less is an error."""

import ast
import json
import re
from copy import deepcopy
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from pairs import planted_corpus
from policies import SUMS, TINY
from referencing import Registry, Resource

import advisor
from advisor.schemas import FOLDER, names, schema
from advisor.schemas.__main__ import main
from calibration import protocol, race
from calibration.corpus import records
from probes import prompts, registry
from probes.training import Trainer, TrainingFailure, config

DATA = ["--data", str(SUMS), "--reward", "exact", "--max-new-tokens", "4"]
QUICK = ["--groups", "8", "--max-prompts", "32"]
TRAINING = ["--steps", "3", "--prompts-per-step", "4", "--group-size", "4", "--learning-rates", "1e-3", "--seeds", "2"]
TRAINING += ["--held-out", "40", "--validation", "20", "--interval-width", "1", "--sampled-completions", "1"]
RACE = ["--effort", "warmup", "--race-rates", "1e-3,3e-3", "--prompts-per-step", "8", "--warmup-steps", "0"]
RACE += ["--race-steps", "4", "--race-budget", "10m", "--validation", "40"]
FILES = {"recommend": "ranking", "verify": "verification", "sweep": "sweep", "probe": "table"}
MADE_UP = ["--data", str(SUMS), "--max-new-tokens", "4", "--reward"]  # a reward of the test's own

OUTPUTS = {  # what: (schema, exit code, command)
    "static": ("ranking", 0, ["recommend", str(TINY), "--effort", "static", "--layers", "2"]),
    "probe": ("ranking", 0, ["recommend", str(TINY), *DATA, *QUICK]),
    "a race": ("ranking", 0, ["recommend", str(TINY), *MADE_UP, "evens", *QUICK, *RACE]),
    "a race that broke down": ("ranking", 3, ["recommend", str(TINY), *MADE_UP, "evens", *QUICK, *RACE]),
    "a constant reward": ("ranking", 3, ["recommend", str(TINY), *MADE_UP, "flat", *QUICK]),
    "proven": ("ranking", None, ["recommend", str(TINY), *DATA, *QUICK, *TRAINING, "--verify"]),
    "nothing to prove": ("ranking", 3, ["recommend", str(TINY), *MADE_UP, "flat", *QUICK, *TRAINING, "--verify"]),
    "verify": ("contributions", None, ["verify", str(TINY), "--layer", "4", "--also", "1", *DATA, *TRAINING]),
    "verify a set": ("contributions", None, ["verify", str(TINY), "--layer", "2,4", *DATA, *TRAINING]),
    "verify nothing": ("contributions", 3, ["verify", str(TINY), "--layer", "4", *MADE_UP, "flat", *TRAINING]),
    "sweep": ("contributions", 0, ["sweep", str(TINY), "--layers", "0,1,3", *MADE_UP, "evens", *TRAINING]),
    "broken seeds": ("contributions", 0, ["sweep", str(TINY), "--layers", "0,1,3", *DATA, *TRAINING]),
    "no headroom": ("contributions", 3, ["sweep", str(TINY), "--layers", "0", *MADE_UP, "solved", *TRAINING]),
    "table": ("table", 0, ["probe", str(TINY), *DATA, *QUICK]),
    "static table": ("table", 0, ["probe", str(TINY), "--effort", "static"]),
    "plan of a table": ("plan", 0, ["probe", str(TINY), *DATA, "--dry-run"]),
    "plan of a static table": ("plan", 0, ["probe", str(TINY), "--effort", "static", "--dry-run"]),
    "plan of a recommendation": ("plan", 0, ["recommend", str(TINY), *DATA, *RACE, *TRAINING, "--verify", "--dry-run"]),
    "plan of a verification": ("plan", 0, ["verify", str(TINY), "--layer", "1", *DATA, *TRAINING, "--dry-run"]),
    "plan of a sweep": ("plan", 0, ["sweep", str(TINY), *DATA, *TRAINING, "--dry-run"]),
    "calibrate": ("predictors", 0, ["calibrate"]),
    "family": ("family", 0, ["report", "--published", "--n-layers", "32"]),
    "estimate": ("estimate", 0, ["estimate", str(TINY)]),
    "estimate elsewhere": (
        "estimate",
        0,
        ["estimate", str(TINY), "--tflops", "100", "--bandwidth", "1000", "--steps", "9"],
    ),
    "estimate, not timed": ("estimate", 0, ["estimate", str(TINY), "--no-time", "--no-lora"]),
    "export": ("export", 0, ["export", "--to", "axolotl"]),
    "tasks": ("tasks", 0, ["tasks"]),
    "probes": ("probes", 0, ["probes"]),
    "env": ("env", 0, ["env"]),
}
OUTPUTS["sweep"][2].extend(["--learning-rates", "1e-2", "--steps", "6"])
OUTPUTS["broken seeds"][2].extend(["--reference", "none"])
OUTPUTS["verify a set"][2].extend(["--reference", "none", "--seeds", "1"])


@pytest.fixture(scope="module")
def kept() -> dict:
    return {}


@pytest.fixture
def output(cli, kept, tmp_path_factory, monkeypatch):
    """What the command line printed in the case `what`, run once; beside it the result files of its folder."""

    def of(what: str) -> dict:
        if what not in kept:
            folder = tmp_path_factory.mktemp("case")
            kept[what] = {"stdout": _printed(cli, what, folder, monkeypatch)}
            for file in sorted(folder.glob("out/*.json")):
                kept[what][file.stem] = json.loads(file.read_text())
        return deepcopy(kept[what])

    return of


def _printed(cli, what: str, folder: Path, monkeypatch):
    (folder / "made_up.py").write_text(
        "def evens(completion_ids, **kwargs): return [sum(i % 2 == 0 for i in x) / len(x) for x in completion_ids]\n"
        "def flat(completions, **kwargs): return [0.0] * len(completions)\n"
    )
    _, code, command = OUTPUTS[what]
    command = [f"{folder}/made_up.py:{part}" if part in ("evens", "flat") else part for part in command]
    command = ["exact" if part == "solved" else part for part in command]
    monkeypatch.setattr("calibration.predictor.DRAWS", 10)  # faster: no test here looks at chances, or at pages
    monkeypatch.setattr("advisor.reports.html.html_report", lambda result: "")
    monkeypatch.setattr("advisor.reports.contributions.html_contributions", lambda result: "")
    monkeypatch.setattr("advisor.forecast._speed", lambda: 1e10)
    if what == "a race that broke down":
        lost = race.Race(broke={"layer 3, rate 0.001": "not finite"}, ended=race.ALL_BROKE, entered=6, arm_steps=6)
        monkeypatch.setattr("advisor.warming.run_race", lambda *args, **kwargs: lost)
    if what == "broken seeds":  # every seed of layer 0, the second of layer 3
        run = Trainer.run

        def breaking(self, *args):
            if self.layers == [0] or (self.layers == [3] and self.config.seed == 1):
                raise TrainingFailure(1, "the loss is not finite")
            return run(self, *args)

        monkeypatch.setattr(Trainer, "run", breaking)
    if what == "no headroom":
        monkeypatch.setattr("advisor.decision.SOLVED_SHARE", 0.2)
    if what == "calibrate":
        for pair in planted_corpus(families=3, tasks=1, layers=4):
            records.save_pair(pair, folder / "corpus")
        monkeypatch.setattr("advisor.calibrating.SMALL_POLICIES", folder / "corpus")
    if what == "export":
        cli("recommend", str(TINY), "--effort", "static", "--output-dir", str(folder / "from"))
        command += ["--from", str(folder / "from")]
    if command[0] in (*FILES, "calibrate", "report"):
        command += ["--output-dir", str(folder / "out")]
    found, out, err = cli(*command, "--json")
    assert found == code or (code is None and found in (0, 3)), err
    monkeypatch.undo()
    return json.loads(out)


FILES_OF_SCHEMAS = sorted(FOLDER.glob("*.json"))
TOLD = {file.name: json.loads(file.read_text(encoding="utf-8")) for file in FILES_OF_SCHEMAS}
BY_NAME = Registry().with_resources((name, Resource.from_contents(told)) for name, told in TOLD.items()).crawl()


def checking(name: str) -> Draft202012Validator:
    """By the files themselves, which refer to each other."""
    return Draft202012Validator(TOLD[f"{name}.schema.json"], registry=BY_NAME)


def errors(name: str, content) -> list[str]:
    return [f"{e.json_path}: {e.message[:200]}" for e in checking(name).iter_errors(content)]


@pytest.mark.parametrize("what", OUTPUTS)
def test_outputs_are_as_described(output, what):
    name, _, command = OUTPUTS[what]
    found = output(what)
    assert errors(name, found["stdout"]) == []
    if "environment" in found:
        assert errors("env", found["environment"]) == []
        assert errors(name, found[FILES[command[0]]]) == []


def test_the_cases_are_what_they_are_called(output):
    of = lambda what: output(what)["stdout"]  # noqa: E731
    assert of("static")["task"] is None
    assert len(of("static")["pick"]) == 2
    standings = [s for rung in of("a race")["race"]["rungs"] for s in rung["standings"]]
    assert {s["out"] for s in standings} >= {None, "rate", "halved"}
    assert of("a race that broke down")["verdict"]["kind"] == "broke_down"
    assert of("a constant reward")["fallback"]["layer"] is not None
    assert of("proven")["verification"]["kind"] == "verification"
    assert of("nothing to prove")["verification"] is None
    assert "greedy" not in of("verify nothing")
    assert [2, 4] in [arm["layer"] for arm in of("verify a set")["greedy"]["layers"]]
    assert of("sweep")["greedy"]["full"]["contribution"] == 1
    broken, _, partly = of("broken seeds")["greedy"]["layers"]
    assert (broken["score"], partly["seeds"]) == (None, [0])
    assert len(partly["failures"]) == 1
    assert of("no headroom")["verdict"]["kind"] == "no_headroom"
    assert of("plan of a recommendation")["verify"]["verb"] == "verify"


OPEN = {"seconds", "columns", "probes", "not_measured", "contributions", "broke", "known_rates", "errors", "packages"}
OPEN |= {"tasks", "config"}  # maps whose names are not fixed
OPTIONAL = {"verification", "verify", "warmup", "origin", *(f"largest_{name}" for name in registry.list_columns())}


def shortened(content):
    """The same with lists and maps of two items: what is valid stays so, and is checked faster."""
    if isinstance(content, list):
        return [shortened(value) for value in content[:2]]
    if isinstance(content, dict):
        return {
            name: shortened(
                {k: v for i, (k, v) in enumerate(value.items()) if i < 2 or k in ("total", "depth curve")}
                if name in OPEN and isinstance(value, dict)
                else value
            )
            for name, value in content.items()
        }
    return content


def damaged(content, inside=None, where=""):
    """Damages `content` in place, one field at a time: one more, one less, or one of another type, at every level.

    Yields what was done; the damage is undone before the next.
    """
    inside = content if inside is None else inside
    if isinstance(inside, dict):
        inside["surprise"] = [None]
        yield f"{where}: one more"
        del inside["surprise"]
    name = re.sub(r".*/([a-z_]+)$", r"\1", where)  # not of items of a list
    for key, value in list(inside.items() if isinstance(inside, dict) else enumerate(inside)):
        may_lack = key in OPTIONAL or name == "origin" or (name in OPEN and key not in ("total", "depth curve"))
        if isinstance(inside, dict) and not may_lack:
            del inside[key]
            yield f"{where}: no {key}"
            inside[key] = value
        if isinstance(value, dict | list):
            yield from damaged(content, value, f"{where}/{key}")
        else:
            inside[key] = {"wrong": [None]}
            yield f"{where}/{key}: wrong type"
            inside[key] = value


DAMAGED = ["static", "a race", "proven", "broken seeds", "table", "plan of a recommendation", "calibrate"]


@pytest.mark.parametrize("what", DAMAGED)
def test_a_field_more_or_less_or_of_another_type_is_found(output, what):
    content, found = shortened(output(what)["stdout"]), 0
    check = checking(OUTPUTS[what][0])
    assert check.is_valid(content)
    for damage in damaged(content, content["verification"] if what == "proven" else None):
        assert not check.is_valid(content), damage
        found += 1
    assert found > 40


@pytest.mark.parametrize("what", ["tasks", "probes", "env"])
def test_lists_are_checked_too(output, what):
    content, check = output(what)["stdout"], checking(what)
    assert check.is_valid(content)
    for damage in damaged(content):
        assert not check.is_valid(content), damage


def test_a_ranking_goes_with_its_verdict(output):
    check = checking("ranking")
    found, no = output("static")["stdout"], output("a constant reward")["stdout"]
    for changed in (
        found | {"pick": []},
        found | {"predictor": None},
        found | {"verdict": no["verdict"]},
        no | {"verdict": found["verdict"]},
        no | {"pick": [1]},
        no | {"fallback": None},
        found | {"verdict": {"kind": "maybe", "text": ""}},
    ):
        assert not check.is_valid(changed)


def every_part(node):
    """Every schema within a schema, but for conditions, which say nothing new of a field."""
    if isinstance(node, dict):
        yield node
        for key, value in node.items():
            if key not in ("if", "then", "else", "examples", "enum", "const", "required", "dependentRequired"):
                yield from every_part(value)
    if isinstance(node, list):
        for value in node:
            yield from every_part(value)


@pytest.mark.parametrize("file", FILES_OF_SCHEMAS, ids=lambda file: file.name)
def test_schemas_are_valid_and_say_what_every_field_means(file):
    told = TOLD[file.name]
    Draft202012Validator.check_schema(told)
    assert told["$id"] == file.name
    assert told["title"]
    assert told["description"]
    assert told["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    silent, loose = [], []
    for part in every_part(told):
        for name, field in part.get("properties", {}).items():
            while isinstance(field, dict) and "description" not in field and "$ref" in field:
                other, _, way = field["$ref"].partition("#/")
                field = TOLD[other] if other else told
                for key in filter(None, way.split("/")):
                    field = field[key]
            if len(field.get("description", "")) < 10 or not field["description"].endswith("."):
                silent.append(name)
        shared = part in [TOLD["parts.json"]["$defs"][name] for name in ("task", "predictor")]  # closed by their users
        closed = part.keys() & {"additionalProperties", "unevaluatedProperties"}
        if "properties" in part and not closed and not shared and "$ref" not in part:
            loose.append(list(part["properties"]))
        if "properties" in part and not set(part.get("required", ())) <= set(part["properties"]):
            loose.append(part["required"])
    assert silent == []
    assert loose == []


@pytest.mark.parametrize("what", ["proven", "table", "plan of a recommendation", "calibrate"])
def test_a_schema_alone_says_what_the_files_say(output, what):
    """It refers to nothing outside itself."""
    content, alone = output(what)["stdout"], Draft202012Validator(schema(OUTPUTS[what][0]))
    assert all(ref.startswith("#") for ref in re.findall(r'"\$ref": "(.+?)"', json.dumps(alone.schema)))
    assert alone.is_valid(content)
    for part in (content, content.get("verification"), content.get("verify")):
        if part is not None:
            part["surprise"] = 1
            assert not alone.is_valid(content)
            del part["surprise"]


def test_schemas_are_found_without_a_verb():
    listed = main([]).splitlines()
    assert [line.split()[0] for line in listed] == names()
    assert json.loads(main(["plan"])) == schema("plan")
    assert set(names()) >= {name for name, _, _ in OUTPUTS.values()}
    with pytest.raises(advisor.UsageError, match="Did you mean 'ranking'"):
        main(["rankings"])
    with pytest.raises(advisor.UsageError, match="2 names"):
        main(["plan", "env"])


PACKAGE = Path(advisor.__file__).parent


def verdicts_said_by(*modules: str) -> set[str]:
    """Kinds of verdict that these modules can give, by themselves or by what they import of `advisor.decision`."""
    trees = {name: ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8")) for name in (*modules, "decision")}
    judges = {part.name: part for part in trees["decision"].body if isinstance(part, ast.FunctionDef)}
    places = [trees[name] for name in modules]
    for name in modules:
        imports = (part for part in ast.walk(trees[name]) if isinstance(part, ast.ImportFrom))
        taken = [alias.name for part in imports if part.module == "advisor.decision" for alias in part.names]
        places += [judges[judge] for judge in taken if judge in judges]
    calls = (part for place in places for part in ast.walk(place) if isinstance(part, ast.Call))
    kinds = [call.args[0] for call in calls if getattr(call.func, "id", "") == "Verdict" and call.args]
    return {kind.value for kind in kinds}


@pytest.mark.parametrize(
    ("name", "modules"),
    [("ranking", ("pipeline", "survey")), ("contributions", ("measuring", "verification", "sweeping"))],
)
def test_every_verdict_that_can_be_given_is_told_of(name, modules):
    kind = schema(name)["properties"]["verdict"]["properties"]["kind"]
    assert set(kind["enum"]) == verdicts_said_by(*modules)
    assert all(f"{word}: " in kind["description"] for word in kind["enum"])


def test_no_verdict_is_given_elsewhere():
    known = {kind for name in ("ranking", "contributions") for kind in _kinds(name)}
    said = [re.findall(r'Verdict\(\s*"(\w+)"', path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
    assert {kind for kinds in said for kind in kinds} == known


def _kinds(name: str) -> list[str]:
    return schema(name)["properties"]["verdict"]["properties"]["kind"]["enum"]


def test_fixed_words_are_those_of_the_code():
    ranking, measured = schema("ranking"), schema("contributions")
    parts = ranking["$defs"]["parts.json"]["$defs"]
    told = ranking["$defs"]["race"]["properties"]
    standing = told["rungs"]["items"]["properties"]["standings"]["items"]["properties"]
    source = Path(race.__file__).read_text(encoding="utf-8")
    assert set(told["ended"]["enum"]) == {*re.findall(r'ended="(.+?)"', source), race.ALL_BROKE}
    assert set(told["scored_by"]["enum"]) == {race.EXPECTED, race.ANSWERS}
    assert set(standing["out"]["enum"]) == {race.BEHIND, race.HALVED, race.RATE, None}
    assert standing["out"] == ranking["$defs"]["last_standing"]["properties"]["out"]
    assert tuple(parts["effort"]["enum"]) == registry.EFFORTS
    assert tuple(parts["decoding"]["enum"]) == registry.DECODINGS
    assert tuple(parts["algorithm"]["enum"]) == config.ALGORITHMS
    assert tuple(parts["prompt_style"]["enum"]) == prompts.PROMPT_STYLES
    assert tuple(measured["$defs"]["protocol"]["properties"]["engine"]["enum"]) == protocol.ENGINES
