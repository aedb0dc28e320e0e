import inspect

import pytest
import torch
import transformers
from policies import ARCHITECTURES, make_model, model_state

from probes.cost import Arm, StepShape, count_step
from probes.cost.arms import set_up
from probes.cost.built import counted_model, random_model, shortened
from probes.cost.counting import count_generation, count_pass, predict
from probes.errors import UsageError
from probes.log_probs import token_log_probs
from probes.stack import find_stack

SHAPE = StepShape(prompts=2, group_size=3, prompt_tokens=7, max_new_tokens=9, rows_per_pass=3)
ARMS = (Arm(), Arm(1), Arm(1, 4))


def config_of(name: str, **changes):
    return getattr(transformers, f"{name}Config")(**{**ARCHITECTURES[name][1], **changes})


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_counting_without_numbers_equals_counting_a_real_pass(name, arm):
    config = config_of(name)
    with counted_model(config, torch.float32) as model:
        counted = count_pass(model, arm, SHAPE)
    real = count_pass(random_model(config, 3, torch.float32, torch.device("cpu")), arm, SHAPE)
    assert (counted.trainable, counted.forward_flops) == (real.trainable, real.forward_flops)
    tolerance = 1e-3 if name == "Mixtral" else 0  # the ends of the experts' rows are not counted
    for quantity in ("backward_flops", "activations", "peak", "gradients", "optimizer"):
        assert getattr(counted, quantity) == pytest.approx(getattr(real, quantity), rel=tolerance), quantity


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_activations_are_what_autograd_saves_in_a_real_pass(name, arm):
    model = make_model(name)
    ids = torch.ones((SHAPE.pass_rows, SHAPE.length), dtype=torch.long)
    saved: dict[int, torch.UntypedStorage] = {}

    def note(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()  # kept: no address comes twice
        return tensor

    with set_up(model, arm) as trained:
        weights = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers(), *trained]}
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            logits, source = predict(model, ids, SHAPE.prompt_tokens)
            token_log_probs(logits, source, torch.zeros_like(source), 1.0).sum()
    reference = sum(storage.nbytes() for pointer, storage in saved.items() if pointer not in weights)
    with counted_model(model.config, torch.float32) as counted:
        found = count_pass(counted, arm, SHAPE).activations
    assert found == pytest.approx(reference, rel=0.03)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_lora_is_what_peft_trains(name):
    import peft

    from advisor.freezing import lora_config

    model = make_model(name)
    with counted_model(model.config, torch.float32) as counted:
        found = count_pass(counted, Arm(1, 4), SHAPE)
    adapted = peft.get_peft_model(model, lora_config(model, [1], r=4))
    assert found.trainable == sum(p.numel() for p in adapted.parameters() if p.requires_grad)


def test_lora_in_half_precision_keeps_what_peft_keeps():
    import peft

    from advisor.freezing import lora_config
    from probes.cost.counting import Bill

    model = make_model("Llama").to(torch.bfloat16)
    with counted_model(model.config, torch.bfloat16) as counted:
        found = count_pass(counted, Arm(1, 4), SHAPE)
    adapted = peft.get_peft_model(model, lora_config(model, [1], r=4)).get_base_model()
    ids = torch.ones((SHAPE.pass_rows, SHAPE.length), dtype=torch.long)
    with Bill([*adapted.parameters(), *adapted.buffers(), ids]) as bill:
        logits, source = predict(adapted, ids, SHAPE.prompt_tokens)
        log_probs = token_log_probs(logits, source, torch.zeros_like(source), 1.0)
        del logits
    assert log_probs.requires_grad
    assert found.activations == pytest.approx(bill.now, rel=0.03)
    assert found.forward_flops == bill.flops


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_trainable_parameters(name):
    model = make_model(name)
    with counted_model(model.config, torch.float32) as counted:
        trained = {arm: count_pass(counted, arm, SHAPE).trainable for arm in (Arm(), Arm(2))}
    assert trained[Arm()] == sum(p.numel() for p in model.parameters())
    assert trained[Arm(2)] == find_stack(model).sizes()[2]


def test_operations_of_a_llama_by_hand():
    width, inner, heads, size, keys, words = 32, 48, 4, 8, 2, 99
    tokens, rows, layers = SHAPE.length, SHAPE.pass_rows, 3
    linear = 2 * width * width + 2 * width * keys * size + 3 * width * inner
    attention = 2 * 2 * rows * heads * tokens**2 * size
    head = 2 * rows * SHAPE.max_new_tokens * width * words
    with counted_model(config_of("Llama"), torch.float32) as model:
        found = count_pass(model, Arm(), SHAPE)
    assert found.forward_flops == layers * (2 * rows * tokens * linear + attention) + head
    # Twice the products, and attention's five for its two: it is not kept but done again.
    assert found.backward_flops == layers * (4 * rows * tokens * linear + 2.5 * attention) + 2 * head


def test_memory_of_the_update_by_hand():
    sizes = find_stack(make_model("Llama")).sizes()
    for dtype, copy in ((torch.float32, 0), (torch.bfloat16, 4)):
        with counted_model(config_of("Llama"), dtype) as model:
            adam, sgd = (count_pass(model, Arm(1), SHAPE, optimizer) for optimizer in ("adamw", "sgd"))
        assert (adam.gradients, adam.optimizer) == (4 * sizes[1], (8 + copy) * sizes[1])
        assert (sgd.gradients, sgd.optimizer) == (dtype.itemsize * sizes[1], 0)


def test_cache_by_hand():
    with counted_model(config_of("Llama"), torch.bfloat16) as model:
        cache, peak = count_generation(model, SHAPE)
    a_token = 2 * 3 * 2 * 8 * 2 + 8  # keys and values: layers, heads of keys, their width, bytes; the attention mask
    assert cache == SHAPE.rows * SHAPE.length * a_token
    assert peak > cache


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_checkpointing_keeps_less_and_runs_the_reached_layers_again(arm):
    saving = StepShape(**{**vars(SHAPE), "gradient_checkpointing": True})
    with counted_model(config_of("Llama"), torch.float32) as model:
        plain, saved = count_pass(model, arm, SHAPE), count_pass(model, arm, saving)
        lowest = count_pass(model, Arm(0), saving)
    assert saved.activations < plain.activations
    assert plain.backward_flops < saved.backward_flops
    assert saved.forward_flops == plain.forward_flops
    if arm.layer:
        assert saved.backward_flops < lowest.backward_flops


def test_later_layers_are_cheaper():
    with counted_model(config_of("Qwen3"), torch.float32) as model:
        first, middle, last = (count_pass(model, Arm(k), SHAPE) for k in range(3))
        full = count_pass(model, Arm(), SHAPE)
    for quantity in ("backward_flops", "activations", "peak"):
        values = [getattr(count, quantity) for count in (last, middle, first, full)]
        assert values == sorted(set(values)), quantity


def test_long_completions_do_not_write_attention_out():
    """Kept bytes grow in proportion to length where the CPU's attention is fused."""
    shapes = [StepShape(1, 1, n, n) for n in (16, 32)]
    with counted_model(config_of("Llama"), torch.float32) as model:
        short, long = (count_pass(model, Arm(), shape).activations for shape in shapes)
    assert long == pytest.approx(2 * short, rel=0.02)


def test_the_model_is_left_as_found():
    model = make_model("Llama")
    before = model_state(model)
    for arm in ARMS:
        count_pass(model, arm, SHAPE)
    with pytest.raises(KeyboardInterrupt), set_up(model, Arm(1, 4)):
        raise KeyboardInterrupt
    assert model_state(model) == before


def test_shortened_configuration():
    config = config_of("Gemma2", num_hidden_layers=3)
    short = shortened(config, 2)
    assert (short.num_hidden_layers, len(short.layer_types)) == (2, 2)
    assert (config.num_hidden_layers, len(config.layer_types)) == (3, 3)
    assert len(find_stack(random_model(config_of("GPT2"), 2, torch.float32, torch.device("cpu")))) == 2


def test_random_models_have_finite_losses():
    model = random_model(config_of("Llama"), 2, torch.float32, torch.device("cpu"))
    assert "logits_to_keep" in inspect.signature(model.forward).parameters
    logits, source = predict(model, torch.ones((2, 6), dtype=torch.long), 4)
    assert logits.shape == (4, 99)
    assert torch.isfinite(token_log_probs(logits, source, torch.zeros_like(source), 1.0)).all()


@pytest.mark.parametrize(
    ("arms", "options", "said"),
    [
        ([Arm(), Arm(3)], {}, "Layer 3 is out of range"),
        ([Arm(), Arm(1, 0)], {}, "rank 0"),
        ([Arm()], {"optimizer": "adam"}, "Did you mean 'adamw'"),
    ],
)
def test_what_is_not_there_is_told(arms, options, said):
    with pytest.raises(UsageError, match=said):
        count_step(config_of("Llama"), arms, SHAPE, dtype=torch.float32, **options)


@pytest.mark.parametrize("field", ["prompts", "group_size", "prompt_tokens", "max_new_tokens", "rows_per_pass"])
def test_sizes_are_at_least_one(field):
    with pytest.raises(UsageError, match=f"{field.replace('_', ' ')} 0 is not allowed"):
        StepShape(**{field: 0})


def test_passes_are_whole_groups_of_512_completion_tokens():
    assert StepShape(16, 8, 64, 32).pass_rows == 16
    assert StepShape(16, 8, 64, 1000).pass_rows == 8
    assert StepShape(1, 4, 8, 8).pass_rows == 4
    assert StepShape(2, 4, 8, 8, rows_per_pass=3).passes == pytest.approx(8 / 3)
