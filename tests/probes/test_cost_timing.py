"""Nothing here depends on speed: the clock that the code reads is made to count operations instead of seconds."""

import numpy as np
import pytest
import torch
import transformers
from policies import ARCHITECTURES, make_model, model_state

from probes.cost import Arm, Machine, StepShape, count_step, make_bench, roofline, time_step
from probes.cost.clock import LayerClock
from probes.cost.counting import Bill
from probes.cost.pass_time import time_passes
from probes.cost.sampling_time import time_sampling
from probes.stack import find_stack

CPU = torch.device("cpu")
SHAPE = StepShape(prompts=2, group_size=4, prompt_tokens=6, max_new_tokens=10, rows_per_pass=4)


@pytest.fixture
def operations(monkeypatch):
    """One operation takes one second."""
    with Bill([]) as bill:
        monkeypatch.setattr(LayerClock, "now", lambda self: float(bill.flops))
        yield bill


def counted_with_bench(name: str, n_layers: int, arms, shape=SHAPE, **options):
    key = "n_layer" if name in ("GPT2", "Bloom") else "num_hidden_layers"
    config = getattr(transformers, f"{name}Config")(**{**ARCHITECTURES[name][1], key: n_layers})
    counted = count_step(config, arms, shape, dtype=torch.float32, **options)
    return counted, make_bench(counted, CPU)


@pytest.mark.parametrize("name", ["Llama", "GPT2", "Gemma2", "OPT"])
@pytest.mark.parametrize("saving", [False, True])
def test_a_few_layers_stand_for_all(name, saving, operations):
    arms = [Arm(), Arm(0), Arm(4), Arm(8), Arm(4, 2)]
    shape = StepShape(**{**vars(SHAPE), "gradient_checkpointing": saving})
    counted, bench = counted_with_bench(name, 9, arms, shape)
    assert bench.training_layers < 9
    for arm, seconds in zip(arms, time_passes(bench, arms), strict=True):
        count = counted.arms[arm]
        assert seconds.forward == pytest.approx(count.forward_flops * shape.passes, rel=1e-9), arm.name
        assert seconds.backward == pytest.approx(count.backward_flops * shape.passes, rel=1e-9), arm.name


def test_fewer_rows_and_shorter_ones_stand_for_all(operations, monkeypatch):
    monkeypatch.setattr("probes.cost.bench.PASS_FLOPS", 2e5)
    arms = [Arm(), Arm(2)]
    counted, bench = counted_with_bench("Llama", 9, arms)
    assert bench.cut_pass().group_size < SHAPE.pass_rows or bench.cut_pass().length < SHAPE.length
    for arm, seconds in zip(arms, time_passes(bench, arms), strict=True):
        assert seconds.backward == pytest.approx(counted.arms[arm].backward_flops * SHAPE.passes, rel=1e-9)


def test_what_a_pass_takes_whatever_its_rows_is_not_multiplied(monkeypatch):
    monkeypatch.setattr("probes.cost.bench.PASS_FLOPS", 4e6)
    monkeypatch.setattr(
        "probes.cost.pass_time._pieces", lambda stub, ids, shape: np.array([0, 5 + 2 * len(ids), 0, 0, 0, 0.0])
    )
    shape = StepShape(4, 4, 6, 10, rows_per_pass=16)
    _, bench = counted_with_bench("Llama", 4, [Arm(1)], shape)
    assert 1 < bench.cut_pass().group_size < 8
    (found,) = time_passes(bench, [Arm(1)])
    assert found.backward == pytest.approx(5 + 2 * 16)


def test_sampling_of_all_layers_from_a_few(operations, monkeypatch):
    monkeypatch.setattr("probes.cost.bench._CACHE", 1)
    counted, bench = counted_with_bench("Llama", 9, [Arm()])
    assert bench.sampling_layers == 2
    width, inner, keys, words = 32, 48, 16, 99
    linear = 9 * (2 * width * width + 2 * width * keys + 3 * width * inner)
    tokens = SHAPE.prompts * SHAPE.prompt_tokens + SHAPE.rows * SHAPE.max_new_tokens
    heads = SHAPE.prompts + SHAPE.rows * SHAPE.max_new_tokens
    products = 2 * tokens * linear + 2 * heads * width * words
    attention = 9 * 4 * width * (SHAPE.rows * SHAPE.max_new_tokens * 13.5 + SHAPE.prompts * SHAPE.prompt_tokens**2)
    assert time_sampling(bench) == pytest.approx(products + attention, rel=0.03)
    assert counted.n_layers == 9


def test_the_context_is_not_left(operations):
    """GPT-2 has no position beyond its last."""
    counted, bench = counted_with_bench("GPT2", 3, [Arm()], StepShape(1, 2, 127, 1))
    assert counted.config.n_positions == 128
    assert time_sampling(bench) > 0


def test_a_policy_of_one_layer(operations):
    counted, bench = counted_with_bench("Llama", 1, [Arm(), Arm(0)])
    seconds = time_step(counted, bench)
    for arm, count in counted.arms.items():
        assert seconds[arm].backward == pytest.approx(count.backward_flops * SHAPE.passes, rel=1e-9)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_real_seconds_add_up(optimizer):
    counted, bench = counted_with_bench("Qwen2", 3, [Arm(), Arm(1), Arm(1, 2)], optimizer=optimizer)
    for seconds in time_step(counted, bench).values():
        parts = [seconds.generation, seconds.forward, seconds.backward, seconds.optimizer]
        assert min(parts) > 0
        assert seconds.step == pytest.approx(sum(parts))


def test_the_clock_sees_only_what_backward_reaches_and_leaves_no_hook():
    model = make_model("Llama")
    before = model_state(model)
    stack = find_stack(model)
    ids = torch.ones((2, 5), dtype=torch.long)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in stack.layers[1].parameters():
        parameter.requires_grad_(True)
    start_clock = LayerClock(stack.layers, CPU)
    begun = start_clock.now()
    with start_clock as clock:
        loss = model(input_ids=ids, use_cache=False).logits.sum()
        clock.begin_backward()
        loss.backward()
    whole = clock.now() - begun
    assert np.isnan(clock.backward).tolist() == [True, False, False]
    assert (clock.forward > 0).all()
    parts = clock.forward.sum() + np.nansum(clock.backward) + sum(clock.head)
    assert 0 < parts <= whole
    for parameter in model.parameters():
        parameter.requires_grad_(True)
        parameter.grad = None
    assert model_state(model) == before


def test_roofline_by_hand():
    arms = [Arm(), Arm(1)]
    counted, _ = counted_with_bench("Llama", 3, arms)
    slow_memory, slow_products = Machine(1e18, 1e3), Machine(1e3, 1e18)
    for arm, count in counted.arms.items():
        seconds = roofline(counted, slow_products)[arm]
        assert seconds.forward == pytest.approx(2 * count.forward_flops / 1e3)
        assert seconds.backward == pytest.approx(2 * count.backward_flops / 1e3)
        seconds = roofline(counted, slow_memory)[arm]
        moved = counted.weight_bytes + counted.cache_bytes * (6 / 16 + 1) / 2
        assert seconds.generation == pytest.approx(10 * moved / 1e3)
        assert seconds.optimizer == pytest.approx(30 * count.trainable / 1e3)
