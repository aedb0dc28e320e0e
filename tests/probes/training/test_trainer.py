"""The engine against a textbook loop, its limits, and that it leaves the policy as found."""

import copy

import numpy as np
import pytest
import torch
from policies import make_model, make_rollouts, model_state, task_with

from probes.errors import UsageError
from probes.policy import Policy
from probes.training import Trainer, TrainingConfig, TrainingFailure
from probes.training.batches import prompts_of_step
from probes.training.optimizer import warmed_up


def config(**changes) -> TrainingConfig:
    return TrainingConfig(**{"steps": 2, "prompts_per_step": 4, "max_new_tokens": 4, "warmup_steps": 0, **changes})


def textbook(policy, groups, settings, names):
    """One batch of GRPO by the papers' formulas: one completion at a time, torch's AdamW; returns the weights."""
    model, base = copy.deepcopy(policy.model), policy.model
    parameters = [p for name, p in model.named_parameters() if name in names]
    for p in model.parameters():
        p.requires_grad_(any(p is q for q in parameters))
    adam = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    n_tokens = sum(len(ids) for g in groups for ids in g.completion_ids)
    n_completions = sum(len(g.completion_ids) for g in groups)

    def log_probs(model, prompt, ids):
        logits = model(torch.tensor([prompt + ids])).logits[0] / settings.temperature
        return logits[len(prompt) - 1 : -1].log_softmax(-1)[range(len(ids)), ids]

    old = None
    for _ in range(settings.updates_per_batch):
        loss, seen = 0.0, []
        for group in groups:
            advantages = group.rewards - group.rewards.mean()
            if settings.algorithm == "grpo":
                advantages = advantages / (group.rewards.std(ddof=1) + 1e-4)
            for ids, advantage in zip(group.completion_ids, advantages, strict=True):
                now = log_probs(model, group.prompt_ids, ids)
                before = now.detach() if old is None else old[len(seen)]
                seen.append(now.detach())
                ratio = (now - before).exp()
                low, high = 1 - settings.clip_low, 1 + settings.clip_high
                token_loss = -torch.min(ratio * advantage, ratio.clamp(low, high) * advantage)
                with torch.no_grad():
                    reference = log_probs(base, group.prompt_ids, ids)
                gap = reference - now
                token_loss = token_loss + settings.kl * (gap.exp() - gap - 1)
                total = n_tokens if settings.algorithm == "grpo" else n_completions * settings.max_new_tokens
                loss = loss + token_loss.sum() / total
        old = seen if old is None else old
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
        adam.step()
    return {name: p.detach() for name, p in model.named_parameters() if name in names}


@pytest.mark.parametrize("layers", [None, [1], [0, 2]])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"algorithm": "dr_grpo", "weight_decay": 0.1},
        {"updates_per_batch": 3, "clip_low": 0.02, "clip_high": 0.04},
        {"kl": 0.5, "updates_per_batch": 2, "temperature": 0.7},
    ],
)
def test_against_the_textbook(tiny, sums, changes, layers):
    policy = Policy.from_objects(make_model("Llama"), tiny.tokenizer)
    groups = make_rollouts(5).groups
    groups[3].rewards[:] = 1.0  # no spread: counts in the normaliser
    settings = config(learning_rate=1e-2, tokens_per_pass=20, **changes)
    with Trainer(policy, sums, settings, layers=layers) as trainer:
        names = set(trainer.trained)
        trainer.update(groups)
        found = trainer.weights()
    expected = textbook(policy, groups, settings, names)
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=2e-4, msg=name)


@pytest.mark.parametrize("changes", [{"tokens_per_pass": 1}, {"gradient_checkpointing": True}])
def test_what_only_bounds_memory_does_not_change_the_result(tiny, sums, changes):
    def weights(settings):
        with Trainer(tiny, sums, settings, layers=[2]) as trainer:
            trainer.update(make_rollouts(6, n_words=60).groups)
            return trainer.weights()

    expected, found = weights(config(learning_rate=1e-3)), weights(config(learning_rate=1e-3, **changes))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4)


def test_the_unshared_computation_gives_the_same(architecture, sums):
    def weights(share):
        settings = config(learning_rate=1e-3)
        with Trainer(architecture, sums, settings, layers=[1], share_prompts=share) as trainer:
            trainer.update(make_rollouts(5).groups)
            return trainer.weights()

    shared, unshared = weights(None), weights(False)
    for name in shared:
        torch.testing.assert_close(shared[name], unshared[name], rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("ending", [None, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("layers", [None, [3]])
def test_exactly_what_was_asked_for_is_trained_and_put_back(own_tiny, sums, layers, ending):
    model = own_tiny.model.train()
    before, weights = model_state(model), copy.deepcopy(model.state_dict())

    def train():
        with Trainer(own_tiny, sums, config(learning_rate=1e-3), layers=layers) as trainer:
            trainer.run()
            changed = {n for n, p in model.named_parameters() if not torch.equal(p, weights[n])}
            expected = {n for n, _ in model.named_parameters() if layers is None or n.startswith("model.layers.3.")}
            assert changed == expected == set(trainer.weights())
            if ending is not None:
                raise ending

    if ending is None:
        train()
    else:
        with pytest.raises(ending):
            train()
    assert model_state(model) == before
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_a_gradient_that_the_caller_holds_takes_no_part_and_is_put_back(own_tiny, sums):
    groups, settings = make_rollouts(4, n_words=60).groups, config(learning_rate=1e-3)

    def weights():
        with Trainer(own_tiny, sums, settings, layers=[2]) as trainer:
            trainer.update(groups)
            return trainer.weights()

    expected = weights()
    held = {name: torch.full_like(p, 7.0) for name, p in own_tiny.model.named_parameters()}
    for name, p in own_tiny.model.named_parameters():
        p.grad = held[name]
    found = weights()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(p.grad is held[name] and bool((p.grad == 7).all()) for name, p in own_tiny.model.named_parameters())


@pytest.mark.parametrize(("layer", "n_forward"), [(0, 12), (3, 9), (5, 7)])
def test_backward_stops_at_the_trained_layer_with_checkpointing_too(tiny, sums, layer, n_forward):
    """Layers that run forward: all 6, and again from the trained one up. No input below it asks for a gradient."""
    calls, asking = [], set()

    def watch(k):
        def hook(module, args, kwargs):
            if torch.is_grad_enabled():
                calls.append(k)
                hidden = args[0] if args else kwargs["hidden_states"]
                if hidden.requires_grad:
                    asking.add(k)

        return hook

    with Trainer(tiny, sums, config(gradient_checkpointing=True), layers=[layer]) as trainer:
        for k, module in enumerate(tiny.stack.layers):
            inner = module.self_attn
            inner.register_forward_pre_hook(watch(k), with_kwargs=True)
        trainer.update(make_rollouts(3, n_words=60).groups)
    assert len(calls) == n_forward
    assert min(asking, default=6) >= layer


def test_bfloat16_weights_keep_updates_that_rounding_would_lose(own_tiny, sums):
    own_tiny.model.to(torch.bfloat16)
    groups = make_rollouts(6, n_words=60).groups
    with Trainer(own_tiny, sums, config(learning_rate=1e-6), layers=[2]) as trainer:
        name, parameter = next(iter(trainer.trained.items()))
        for _ in range(4):
            trainer.update(groups)
        moved = (trainer.weights()[name] - trainer.base[name].float()).abs()
        assert parameter.dtype == torch.bfloat16
        assert 0 < float(moved.max()) < 1e-5
        assert torch.equal(parameter.float(), trainer.weights()[name].bfloat16().float())


def test_training_raises_the_reward(tiny, sums):
    """Planted: answers that begin with a 7 are rewarded."""

    def sevens(completions, **kwargs):
        return [float(text.startswith("7")) for text in completions]

    settings = config(steps=30, prompts_per_step=16, learning_rate=3e-3)
    with Trainer(tiny, task_with(sums, sevens), settings, layers=[4]) as trainer:
        rewards = [record.reward for record in trainer.run()]
    assert rewards[0] < 0.3
    assert np.mean(rewards[-5:]) > 2 * rewards[0]


def test_a_constant_reward_changes_nothing(tiny, sums):
    task = task_with(sums, lambda completions, **kwargs: [1.0] * len(completions))
    with Trainer(tiny, task, config(learning_rate=0.1), layers=[1]) as trainer:
        assert trainer.run()[-1].grad_norm == 0
        assert all(torch.equal(value, trainer.base[name]) for name, value in trainer.weights().items())


def test_unscored_completions_take_no_part(tiny, sums):
    with Trainer(tiny, sums, config(), layers=[1]) as trainer:
        groups = make_rollouts(2, n_words=60).groups
        groups[0].rewards[1:] = np.nan
        groups[1].rewards[0] = np.nan
        loss, norm = trainer.update(groups)
    assert np.isfinite(loss)
    assert norm > 0


def test_the_seed_sets_everything(tiny, sums):
    def run(seed):
        with Trainer(tiny, sums, config(seed=seed, learning_rate=1e-3), layers=[1]) as trainer:
            trainer.run()
            return next(iter(trainer.weights().values()))

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_every_prompt_comes_once_before_any_comes_twice():
    seen = [i for step in range(7) for i in prompts_of_step(step, 7, config(prompts_per_step=3))]
    assert all(sorted(seen[i : i + 7]) == list(range(7)) for i in (0, 7, 14))


def test_numbers_that_are_no_longer_sound_end_the_run_typed(own_tiny, sums):
    groups = make_rollouts(2, n_words=60).groups
    with Trainer(own_tiny, sums, config(), layers=[1]) as trainer:
        with torch.no_grad():
            own_tiny.model.model.norm.weight.fill_(float("nan"))
        with pytest.raises(TrainingFailure, match="step 1: the loss is not finite") as caught:
            trainer.update(groups)
        assert caught.value.step == 0
        with pytest.raises(TrainingFailure, match="logits are no longer finite"):
            trainer.step()


def test_an_exploding_loss_ends_the_run_typed(tiny, sums):
    settings = config(learning_rate=0.5, updates_per_batch=8, kl=1.0)
    with pytest.raises(TrainingFailure, match=r"exploded|not finite"), Trainer(tiny, sums, settings) as trainer:
        trainer.update(make_rollouts(4, n_words=60).groups)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "The steps 0 is not allowed: it must be at least 1"),
        ({"group_size": 1}, "at least 2, since advantages compare"),
        ({"learning_rate": 0.0}, "above 0 and below 1"),
        ({"kl": -1.0}, "at least 0"),
        ({"temperature": 0.0}, "above 0"),
        ({"algorithm": "grp"}, "Did you mean 'grpo'"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        TrainingConfig(**changes)


@pytest.mark.parametrize(("layers", "message"), [([6], "Layer 6 is out of range.*0 to 5"), ([], "No layer was named")])
def test_bad_layers_are_refused(tiny, sums, layers, message):
    with pytest.raises(UsageError, match=message):
        Trainer(tiny, sums, config(), layers=layers)


def test_half_precision_without_range_is_refused(own_tiny, sums):
    own_tiny.model.half()
    with pytest.raises(UsageError, match="is float16, which cannot be trained"):
        Trainer(own_tiny, sums, config(), layers=[0])


def test_warmup():
    assert [warmed_up(step, 4) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert warmed_up(0, 0) == 1.0
