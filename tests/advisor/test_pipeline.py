import json

import pytest
from policies import TINY, make_model, model_state

import advisor
from probes.registry import list_columns
from probes.tasks import Task

QUICK = advisor.SamplingConfig(groups=8, max_prompts=32, max_new_tokens=4)


@pytest.fixture(scope="module")
def recommended(_tiny, sums):
    return advisor.recommend(_tiny.model, _tiny.tokenizer, sums, sampling=QUICK)


def test_a_library_call_ranks_every_layer(recommended):
    rec = recommended
    assert rec.verdict.kind == "predicted"
    assert len(rec.pick) == 1
    best = next(layer for layer in rec.layers if layer["rank"] == 1)
    assert [best["layer"]] == rec.pick
    assert sorted(layer["rank"] for layer in rec.layers) == [1, 2, 3, 4, 5, 6]
    assert all(layer["low"] < layer["contribution"] < layer["high"] for layer in rec.layers)
    assert all(layer["advantage_low"] <= layer["advantage"] <= layer["advantage_high"] for layer in rec.layers)
    assert sum(layer["p_best"] for layer in rec.layers) == pytest.approx(1, abs=1e-5)
    assert sum(layer["p_top3"] for layer in rec.layers) == pytest.approx(3, abs=1e-5)
    assert rec.predicted.by["families"] == sorted(rec.predicted.by["families"])
    assert set(rec.layers[0]["probes"]) == set(list_columns("probe"))
    assert {"middle", "depth_prior", "first", "last", "largest_grad_norm"} <= set(rec.baselines)
    assert rec.reward["groups_with_spread"] >= 8
    assert 0 < rec.reward["held_out_mean"] < 1


def test_the_same_by_name_and_by_object(recommended, sums):
    named = advisor.recommend(str(TINY), task=sums, sampling=QUICK, device="cpu")
    assert [layer["contribution"] for layer in named.layers] == [la["contribution"] for la in recommended.layers]
    assert named.pick == recommended.pick


def test_model_is_as_found(tiny, sums):
    tiny.model.train()
    before = model_state(tiny.model)
    advisor.recommend(tiny.model, tiny.tokenizer, sums, sampling=QUICK)
    assert model_state(tiny.model) == before
    tiny.model.eval()


@pytest.mark.parametrize("ending", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("at", ["sample rollouts", "score held-out prompts", "probe gradients", "probe attribution"])
def test_model_is_as_found_after_an_exception_or_interrupt(tiny, sums, ending, at):
    class Stops(advisor.Progress):
        stage = None

        def begin(self, stage, total):
            self.stage = stage

        def advance(self, amount=1.0):
            if self.stage == at:
                raise ending

    before = model_state(tiny.model)
    with pytest.raises(ending):
        advisor.recommend(tiny.model, tiny.tokenizer, sums, sampling=QUICK, progress=Stops())
    assert model_state(tiny.model) == before


def test_an_interrupted_run_goes_on_with_the_same_result(tmp_path, sums):
    class StopsAtGradients(advisor.Progress):
        def begin(self, stage, total):
            if stage == "probe gradients":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        advisor.recommend(str(TINY), task=sums, sampling=QUICK, output_dir=tmp_path / "a", progress=StopsAtGradients())
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "a" / "journal.jsonl").read_text().splitlines()]
    assert kinds.count("probe") == 3
    begun = []

    class Watches(advisor.Progress):
        def begin(self, stage, total):
            begun.append(stage)

    resumed = advisor.recommend(str(TINY), task=sums, sampling=QUICK, output_dir=tmp_path / "a", progress=Watches())
    straight = advisor.recommend(str(TINY), task=sums, sampling=QUICK, output_dir=tmp_path / "b")
    assert [s for s in begun if s.startswith("probe")] == ["probe gradients", "probe attribution"]
    assert resumed.layers == straight.layers


def test_mending_the_reward_keeps_the_completions(tmp_path, sums):
    def broken(prompts, completions, **kwargs):
        if len(prompts) > 100:  # not the first few
            raise KeyError("answer")
        return sums.reward(completions, **kwargs)

    sampling = advisor.SamplingConfig(groups=12, max_prompts=32)
    with pytest.raises(advisor.RunError, match="KeyError"):
        advisor.recommend(
            str(TINY),
            task=Task(**{**vars(sums), "reward": broken, "reward_name": "broken"}),
            sampling=sampling,
            output_dir=tmp_path,
        )
    kept = (tmp_path / "journal.jsonl").read_text()
    assert '"completions"' in kept
    rec = advisor.recommend(str(TINY), task=sums, sampling=sampling, output_dir=tmp_path)
    assert rec.verdict.has_ranking
    first = next(line for line in kept.splitlines() if '"completions"' in line)
    journal = (tmp_path / "journal.jsonl").read_text()
    assert journal.count(json.loads(first)["key"]) == 1


@pytest.mark.parametrize(("value", "kind"), [(0.0, "constant_reward"), (1.0, "no_headroom"), (None, "constant_reward")])
def test_no_signal_is_a_verdict_and_not_a_ranking(tiny, sums, value, kind):
    flat = Task(**{**vars(sums), "reward": lambda completions, **kwargs: [value] * len(completions)})
    rec = advisor.recommend(tiny.model, tiny.tokenizer, flat, sampling=QUICK)
    assert rec.verdict.kind == kind
    assert rec.pick == []
    assert all(layer["rank"] is None for layer in rec.layers)
    assert rec.fallback["why"]
    assert set(rec.table.failures) == {"activations", "gradients", "attribution"}


def test_a_policy_that_solves_the_task_has_no_headroom(tiny, sums):
    """Its samples differ in reward, but greedily it is always right."""
    greedy = Task(
        **{
            **vars(sums),
            "reward": lambda completions, completion_ids, **kwargs: [
                float(len(completions) == 64) or float(len(c) > 1) for c in completions
            ],
        }
    )
    rec = advisor.recommend(
        tiny.model,
        tiny.tokenizer,
        greedy,
        sampling=advisor.SamplingConfig(groups=4, max_prompts=24, max_new_tokens=4, batch_prompts=6, temperature=2.0),
    )
    assert rec.verdict.kind == "no_headroom"
    assert rec.fallback["layer"] is None


def test_static_effort_reads_files_only(monkeypatch):
    import transformers

    def loads(*args, **kwargs):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", loads)
    rec = advisor.recommend(str(TINY), effort="static")
    assert (rec.verdict.kind, rec.task, rec.reward) == ("predicted", None, None)
    assert set(rec.table.columns) == set(list_columns("static"))


def test_random_weights_are_noticed(tiny):
    model = make_model("Llama", hidden_size=64, intermediate_size=96)
    rec = advisor.recommend(model, tiny.tokenizer, effort="static")
    assert rec.verdict.kind == "random_weights"


@pytest.mark.parametrize("decoding", ["greedy", "sampled"])
def test_decoding_is_part_of_the_protocol(tiny, sums, decoding):
    rec = advisor.recommend(tiny.model, tiny.tokenizer, sums, decoding=decoding, sampling=QUICK)
    assert rec.protocol["decoding"] == decoding
    assert rec.baselines["depth_prior"] == (5 if decoding == "sampled" else 2)


def test_a_model_needs_its_tokenizer(tiny):
    with pytest.raises(advisor.UsageError, match="needs its tokenizer"):
        advisor.recommend(tiny.model)


def test_public_names_resolve():
    assert all(getattr(advisor, name) is not None for name in advisor.__all__)
    with pytest.raises(AttributeError, match="no attribute 'reccomend'"):
        _ = advisor.reccomend


def test_a_finished_run_keeps_its_cost(tmp_path, sums):
    first, again = (advisor.recommend(str(TINY), task=sums, sampling=QUICK, output_dir=tmp_path) for _ in range(2))
    assert again.cost == first.cost
    assert again.as_dict() == first.as_dict()


def test_a_recommendation_freezes_groups_and_adapts(recommended, own_tiny):
    model, pick = own_tiny.model, recommended.pick
    with recommended.freeze(model) as frozen:
        assert list(frozen.layers) == pick
    assert recommended.param_groups(model, lr=1e-6)[0]["lr"] == 1e-6
    with pytest.raises(advisor.UsageError, match="this model has 3"):
        recommended.freeze(make_model("Llama"))


def test_a_recommendation_is_read_back(recommended, tiny, tmp_path):
    recommended.report(tmp_path)
    again = advisor.Recommendation.load(tmp_path)
    assert again.pick == recommended.pick
    assert again.order == recommended.order
    for was, now in zip(recommended.layers, again.layers, strict=True):
        assert {k: v for k, v in now.items() if isinstance(v, float)} == pytest.approx(
            {k: v for k, v in was.items() if isinstance(v, float)}, abs=3e-6
        )
    again.report(tmp_path / "again")
    assert (tmp_path / "again" / "report.md").read_text() == (tmp_path / "report.md").read_text()
    assert (tmp_path / "again" / "report.html").exists()
    assert again.lora_config(r=4).target_modules == again.lora_config(tiny.model).target_modules
    with pytest.raises(advisor.UsageError, match="holds no recommendation"):
        advisor.Recommendation.load(tmp_path / "nothing")
