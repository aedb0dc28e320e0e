"""Effort warmup from end to end: the race, its resumption, and verification that goes on from it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from policies import SUMS, TINY, make_model, model_state, only_layer_matters, task_with

import advisor
from advisor import warming
from advisor.verification import options_like
from advisor.warming import Warmup, affordable
from calibration.protocol import Protocol
from calibration.race import RaceRules
from probes.policy import Policy
from probes.progress import Progress
from probes.training import TrainingConfig

QUICK = advisor.SamplingConfig(groups=8, max_prompts=32, max_new_tokens=4)
PROTOCOL = Protocol(
    TrainingConfig(steps=6, prompts_per_step=8, warmup_steps=0),
    learning_rates=(1e-3,),
    seeds=2,
    validation=40,
    held_out=60,
)
WARMUP = Warmup(PROTOCOL, (1e-3, 3e-3), RaceRules(rungs=(1, 2, 4), prompts=40))


def recommend(model, tokenizer=None, task=None, **changes):
    options = {"effort": "warmup", "sampling": QUICK, "warmup": WARMUP, **changes}
    return advisor.recommend(model, tokenizer, task, **options)


def evens(completion_ids, **kwargs):
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


class Listening(Progress):
    def __init__(self):
        self.notes, self.counted, self.total = [], 0.0, None

    def note(self, message):
        self.notes.append(message)

    def begin(self, stage, total):
        self.stage = stage
        if stage == "warm up all layers":
            self.total = total

    def advance(self, amount=1.0):
        if self.stage == "warm up all layers":
            self.counted += amount


@pytest.fixture(scope="module")
def raced(_tiny, sums, tmp_path_factory):
    listening, folder = Listening(), tmp_path_factory.mktemp("raced") / "run"
    before = model_state(_tiny.model)
    found = recommend(_tiny.model, _tiny.tokenizer, task_with(sums, evens), output_dir=folder, progress=listening)
    assert model_state(_tiny.model) == before
    return found, listening, folder


def test_every_layer_has_its_gain(raced):
    rec, listening, folder = raced
    assert rec.verdict.kind == "predicted"
    assert f"In the race layer {rec.race.winner.layer} scored best" in rec.verdict.text
    assert sorted(layer["rank"] for layer in rec.layers) == [1, 2, 3, 4, 5, 6]
    assert all(layer["warmup"]["steps"] in (1, 2, 4) for layer in rec.layers)
    best = rec.layers[rec.race.winner.layer]["warmup"]
    assert best["gain_low"] > 0
    assert best["gain_low"] < best["gain"] < best["gain_high"]
    written = json.loads((folder / "ranking.json").read_text())
    assert written["race"]["rungs"][0]["step"] == 1
    assert written["protocol"]["warmup"]["base_steps"] == 0
    assert written["race"]["scored_by"] in ("expected reward", "answers")
    assert 0.3 * listening.total < listening.counted <= 1.2 * listening.total
    assert sorted(p.name for p in (folder / "warmups").iterdir()) == sorted(
        f"layer-{s.layer}.safetensors" for s in rec.race.finalists
    )


def test_reports_tell_the_race(raced, capsys):
    from rich.console import Console

    from advisor.reports.terminal import print_recommendation

    rec, _, folder = raced
    print_recommendation(rec, Console(width=120))
    shown = capsys.readouterr().out
    for text in (shown, (folder / "report.md").read_text(), (folder / "report.html").read_text()):
        assert "warm-ups" in text
    assert "step 1: layer" in shown
    assert "The race" in (folder / "report.html").read_text()
    assert "surely behind" in (folder / "report.md").read_text() or "halved" in (folder / "report.md").read_text()


def test_a_written_race_is_read_back(raced, tiny, sums, tmp_path):
    rec, _, folder = raced
    again = advisor.Recommendation.load(folder)
    strip = lambda race: [[(s.layer, s.rate, s.out) for s in r.standings] for r in race.rungs]  # noqa: E731
    assert strip(again.race) == strip(rec.race)
    assert (again.begun is None) == (rec.begun is None)
    if rec.begun is not None:
        assert again.begun.steps_done == rec.begun.steps_done
    again.report(tmp_path)
    assert (tmp_path / "report.md").read_text() == (folder / "report.md").read_text()


def begun_of(raced):
    """The state of the layer that won the race, which need not be the pick."""
    rec, _, folder = raced
    return warming.load_finalist(folder, rec.race.winner.layer)


def test_a_finished_race_is_not_run_again(raced, tiny, sums, monkeypatch):
    rec, _, folder = raced
    monkeypatch.setattr(warming, "run_race", lambda *args, **kwargs: pytest.fail("the race was run again"))
    again = recommend(tiny.model, tiny.tokenizer, task_with(sums, evens), output_dir=folder)
    assert again.pick == rec.pick
    assert again.race == rec.race
    assert (again.begun is None) == (rec.begun is None)


def test_a_race_that_was_stopped_goes_on(raced, tiny, sums, tmp_path):
    class Stops(Listening):
        def note(self, message):
            super().note(message)
            if message.startswith("step 2:"):
                raise KeyboardInterrupt

    task = task_with(sums, evens)
    with pytest.raises(KeyboardInterrupt):
        recommend(tiny.model, tiny.tokenizer, task, output_dir=tmp_path / "run", progress=Stops())
    assert list((tmp_path / "run" / "warmups" / "step-2").iterdir())
    resumed = recommend(tiny.model, tiny.tokenizer, task, output_dir=tmp_path / "run")
    whole = raced[0].race
    strip = lambda race: [[(s.layer, s.rate, s.score, s.out) for s in r.standings] for r in race.rungs]  # noqa: E731
    assert strip(resumed.race) == strip(whole)
    assert resumed.race.arm_steps == whole.arm_steps


def test_verification_goes_on_from_the_winner_and_gives_what_training_anew_gives(raced, tiny, sums, tmp_path):
    rec, task = raced[0], task_with(sums, evens)
    options = advisor.MeasuringOptions(replace(PROTOCOL, seeds=1), max_new_tokens=4, interval_width=0.9)
    listening = Listening()
    settings = {"layer": [rec.race.winner.layer], "options": options}
    went_on = advisor.verify(tiny.model, tiny.tokenizer, task, start=begun_of(raced), progress=listening, **settings)
    assert any("goes on from step 4" in note for note in listening.notes)
    arm = f"layer {rec.race.winner.layer}"
    run = next(r for r in went_on.runs if r["arm"] == arm)
    assert run["went_on_from"] == 4
    assert run["rate"] == rec.race.winner.rate
    assert len(run["rewards"]) == 6
    anew = replace(PROTOCOL, seeds=1, known_rates={arm: rec.race.winner.rate})
    settings["options"] = replace(options, protocol=anew)
    expected = advisor.verify(tiny.model, tiny.tokenizer, task, **settings)
    assert went_on.results()[arm].score.value == pytest.approx(expected.results()[arm].score.value, abs=1e-6)


def test_other_settings_begin_anew_and_say_so(raced, tiny, sums):
    rec, listening = raced[0], Listening()
    changed = replace(PROTOCOL, seeds=1, training=replace(PROTOCOL.training, prompts_per_step=4, steps=1))
    options = advisor.MeasuringOptions(changed, max_new_tokens=4, interval_width=0.9, reference="none")
    found = advisor.verify(
        tiny.model,
        tiny.tokenizer,
        task_with(sums, evens),
        layer=[rec.race.winner.layer],
        options=options,
        start=begun_of(raced),
        progress=listening,
    )
    assert any("begins anew" in note for note in listening.notes)
    assert all("went_on_from" not in run for run in found.runs)


def test_a_warm_up_on_other_data_is_not_taken_over(raced, tiny, sums):
    rec, listening = raced[0], Listening()
    other = task_with(sums, evens, train=sums.train[:150])
    options = advisor.MeasuringOptions(
        replace(PROTOCOL, seeds=1, training=replace(PROTOCOL.training, steps=4)),
        max_new_tokens=4,
        interval_width=0.9,
        reference="none",
    )
    settings = {"layer": [rec.race.winner.layer], "options": options, "start": begun_of(raced), "progress": listening}
    found = advisor.verify(tiny.model, tiny.tokenizer, other, **settings)
    assert any("begins anew" in note for note in listening.notes)
    assert all("went_on_from" not in run for run in found.runs)


def test_a_planted_layer_wins(own_tiny, sums):
    only_layer_matters(own_tiny, 4)
    rec = recommend(own_tiny.model, own_tiny.tokenizer, task_with(sums, evens))
    assert rec.pick == [4]
    assert rec.layers[4]["p_best"] == 1
    others = [s for rung in rec.race.rungs for s in rung.standings if s.layer != 4]
    assert all(s.gain.value == 0 for s in others)


def test_a_race_on_the_base_policys_completions_goes_on_with_them(tiny, sums, tmp_path):
    task, warmup = task_with(sums, evens), replace(WARMUP, on_base=True, rules=RaceRules(rungs=(2,), prompts=40))
    rec = recommend(tiny.model, tiny.tokenizer, task, warmup=warmup, output_dir=tmp_path / "run")
    assert rec.protocol["warmup"]["base_steps"] == 2
    options = advisor.MeasuringOptions(replace(PROTOCOL, seeds=1), 4, reference="none", interval_width=0.9)
    begun = warming.load_finalist(tmp_path / "run", rec.race.winner.layer)
    layer = [rec.race.winner.layer]
    found = advisor.verify(tiny.model, tiny.tokenizer, task, layer=layer, options=options, start=begun)
    assert found.protocol["base_steps"] == 2
    assert any(run.get("went_on_from") == 2 for run in found.runs)


def test_a_race_without_known_answers_is_scored_by_answers(tiny, sums, monkeypatch):
    monkeypatch.setattr("probes.training.expected._LEAST_SHARE", 9.0)
    listening = Listening()
    rec = recommend(tiny.model, tiny.tokenizer, task_with(sums, evens), decoding="sampled", progress=listening)
    assert rec.race.scored_by == "answers"
    assert any("answer for themselves" in note for note in listening.notes)
    monkeypatch.setattr("probes.training.expected._LEAST_SHARE", 0.0)
    again = recommend(tiny.model, tiny.tokenizer, task_with(sums, evens), decoding="sampled")
    assert again.race.scored_by == "expected reward"
    assert recommend(tiny.model, tiny.tokenizer, task_with(sums, evens)).race.scored_by == "answers"  # greedy


def test_layers_that_cannot_learn_are_no_ranking(own_tiny, sums):
    """The null case: rewards that have nothing to do with the completions."""
    rng = np.random.default_rng(0)
    luck = task_with(sums, lambda completions, **kwargs: rng.integers(0, 2, len(completions)).astype(float).tolist())
    rec = recommend(own_tiny.model, own_tiny.tokenizer, luck)
    shown = [s.gain.above_zero for s in rec.race.rungs[-1].standings]
    assert rec.verdict.kind == ("predicted" if shown[0] else "indistinguishable")
    gains = [s.gain.value for rung in rec.race.rungs for s in rung.standings]
    assert abs(np.mean(gains)) < 0.15


def test_a_reward_that_never_moves_ends_before_the_race(tiny, sums):
    rec = recommend(tiny.model, tiny.tokenizer, task_with(sums, lambda completions, **kwargs: [0.0] * len(completions)))
    assert rec.verdict.kind == "constant_reward"
    assert rec.race is None


def test_untrained_weights_are_not_raced(tiny, sums):
    rec = recommend(make_model("Llama"), tiny.tokenizer, task_with(sums, evens))
    assert rec.verdict.kind == "random_weights"
    assert rec.race is None


def test_memory_decides_how_many_warm_ups_there_are(tiny, monkeypatch):
    order, listening = [3, 2, 4, 1, 5, 0], Listening()
    assert len(affordable(tiny, (1e-3, 1e-4), order, listening)) == 12
    size = sum(p.numel() for p in tiny.stack.layers[0].parameters())
    monkeypatch.setattr(warming, "available_memory_bytes", lambda device: int(16 * size * 4.5 / 0.7))
    arms = affordable(tiny, (1e-3, 1e-4), order, listening)
    assert arms == [(layer, 1e-3) for layer in order[: len(arms)]]
    assert 2 <= len(arms) < 6
    assert f"room for {len(arms)} of 12" in listening.notes[-1]
    monkeypatch.setattr(warming, "available_memory_bytes", lambda device: 1000)
    with pytest.raises(advisor.UsageError, match="memory"):
        affordable(tiny, (1e-3,), order, listening)


def test_layers_that_cannot_share_a_pass_are_trained_one_after_another(tiny, sums, monkeypatch):
    policy = Policy.from_objects(make_model("Bloom"), tiny.tokenizer)
    monkeypatch.setattr("advisor.survey.looks_trained", lambda table: True)  # its weights are random
    rec = recommend(policy.model, policy.tokenizer, task_with(sums, evens))
    assert "Bloom" in rec.race.why_apart


def test_the_command_line_races(cli, tmp_path):
    quick = ["--data", str(SUMS), "--reward", "exact", "--groups", "8", "--max-prompts", "32", "--max-new-tokens", "4"]
    command = ["recommend", str(TINY), *quick, "--effort", "warmup", "--race-rates", "1e-3", "--prompts-per-step", "8"]
    code, out, err = cli(*command, "--steps", "2", "--json", "--output-dir", str(tmp_path / "run"))
    found = json.loads(out)
    assert code == (0 if found["pick"] else 3)
    assert [rung["step"] for rung in found["race"]["rungs"]] == [2]
    assert "warm up all layers" in err
    for wrong, match in (
        (["--race-on", "bse"], "base"),
        (["--race-steps", "0"], "at least 1"),
        (["--race-budget", "soon"], "soon"),
        (["--race-rates", "fast"], "--race-rates 'fast'"),
    ):
        code, _, err = cli(*command, *wrong, "--output-dir", str(tmp_path / "other"))
        assert code == 2
        assert match in err


def test_a_recommendation_with_a_race_tells_its_verification_everything(raced):
    rec = raced[0]
    options = options_like(rec.protocol, seeds=1)
    assert options.protocol.validation == 40
    assert options.protocol.training.prompts_per_step == 8
    assert options.protocol.training.warmup_steps == 0
    config = options.protocol.config(begun_of(raced).config.seed, begun_of(raced).config.learning_rate)
    config = replace(config, max_new_tokens=options.max_new_tokens)
    assert begun_of(raced).fits((rec.race.winner.layer,), config, begun_of(raced).setting)
