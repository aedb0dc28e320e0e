"""Each framework trains the picked layers and nothing else, by its own rule, whatever the model calls its layers.

The rules are those of the targets: PEFT and TRL themselves where they are installed, copies of the others in our words.
"""

import json
import re
import shlex

import peft
import pytest
import torch
import transformers
import yaml
from policies import ARCHITECTURES, make_model

from advisor.exports import TARGETS, axolotl, llama_factory, ms_swift, openrlhf, spectrum, trl, unsloth, verl
from advisor.exports import peft as peft_export
from advisor.exports.material import Material
from advisor.exports.pick import Pick
from advisor.exports.target import FULL, LORA, Order
from probes.stack import find_stack

NAMINGS = ["Llama", "GPT2", "GPTNeoX", "OPT", "Mixtral", "Multimodal"]
PICKS = [[1], [1, 11]]
LINEAR = (torch.nn.Linear, transformers.pytorch_utils.Conv1D)


def multimodal():
    """A vision tower that has layers, with the same names, beside those of the text decoder."""
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 12, "num_attention_heads": 2}
    vision = {**text, "image_size": 28, "patch_size": 14}
    text |= {"num_key_value_heads": 1, "head_dim": 16, "vocab_size": 99, "layer_types": ["full_attention"] * 12}
    tokens = {"mm_tokens_per_image": 4, "image_token_id": 5, "boi_token_id": 6, "eoi_token_id": 7}
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, **tokens)
    return transformers.AutoModelForCausalLM.from_config(config)


def build(name):
    if name == "Multimodal":
        return multimodal()
    depth = "n_layer" if "n_layer" in ARCHITECTURES[name][1] else "num_hidden_layers"
    return make_model(name, **{depth: 12})


@pytest.fixture(scope="module", params=NAMINGS)
def model(request):
    return build(request.param)


@pytest.fixture(params=PICKS, ids=str)
def layers(request):
    return request.param


MATERIAL = Material("some/model", [{"prompt": "1+1=", "answer": "2"}], [], "", "sums")


def written(target, model, layers, way, material=MATERIAL):
    return target.write(Order(Pick.of(model, layers), material, way, 4, target.CHECKED_WITH)).files


def wanted(model, layers):
    """Names of the layers' tensors, found by identity and not by name."""
    stack = find_stack(model)
    ids = {id(p) for k in layers for p in stack.layers[k].parameters()}
    return {name for name, p in model.named_parameters() if id(p) in ids}


def linear(model, layers):
    """Names of the layers' linear maps, found by identity."""
    inside = {id(m) for k in layers for m in find_stack(model).layers[k].modules() if isinstance(m, LINEAR)}
    return {name for name, m in model.named_modules() if id(m) in inside}


def adapted(model, **config):
    """Names of the modules that PEFT itself puts LoRA matrices on."""
    from peft.tuners.tuners_utils import check_target_module_exists

    config = peft.LoraConfig(**config)
    names = [name for name, m in model.named_modules() if isinstance(m, LINEAR)]
    return {name for name in names if check_target_module_exists(config, name)}


def by_hand(model, rule):
    return {name for name, _ in model.named_parameters() if rule(name)}


def options_of(script):
    """The options of a shell script, as its shell and program would read them."""
    return shlex.split(script.replace("\\\n", " "), comments=True)


def test_the_regexes_name_exactly_the_layers(model, layers):
    pick = Pick.of(model, layers)
    assert by_hand(model, re.compile(pick.parameter_regex).match) == wanted(model, layers) == set(pick.parameters)
    names = {name for name, _ in model.named_modules() if re.fullmatch(pick.linear_regex, name)}
    assert names == linear(model, layers) == set(pick.linear)
    assert pick.n_parameters == sum(p.numel() for n, p in model.named_parameters() if n in wanted(model, layers))


def test_peft(model, layers, tmp_path):
    (tmp_path / "adapter_config.json").write_text(written(peft_export, model, layers, LORA)["adapter_config.json"])
    config = peft.LoraConfig.from_pretrained(tmp_path)
    assert adapted(model, target_modules=config.target_modules) == linear(model, layers)
    assert (config.r, config.lora_alpha) == (4, 8)


@pytest.mark.parametrize("name", NAMINGS)
def test_peft_puts_as_many_parameters_there_as_is_said(name, tmp_path):
    model = build(name)
    pick = Pick.of(model, [1])
    (tmp_path / "adapter_config.json").write_text(written(peft_export, model, [1], LORA)["adapter_config.json"])
    wrapped = peft.get_peft_model(model, peft.LoraConfig.from_pretrained(tmp_path))
    assert wrapped.get_nb_trainable_parameters()[0] == pick.n_lora_parameters(4)
    assert f"{pick.n_lora_parameters(4):,} parameters (LoRA of rank 4) in layers {{1}}" in pick.says(LORA, 4)


def test_trl(model, layers):
    from trl import DatasetMixtureConfig, GRPOConfig, ModelConfig, TrlParser, get_peft_config
    from trl.scripts.grpo import GRPOScriptArguments

    files = written(trl, model, layers, FULL)
    assert set(files) == {"train.py", "trl.yaml", "train.jsonl", "reward.py"}
    pattern = re.search(r're.compile\(r"(.*)"\)', files["train.py"]).group(1)
    assert by_hand(model, re.compile(pattern).match) == wanted(model, layers)
    config = yaml.safe_load(files["trl.yaml"]) | {"bf16": False}
    parser = TrlParser((GRPOScriptArguments, GRPOConfig, ModelConfig, DatasetMixtureConfig))
    script, training, told, data = parser.parse_dict(config, allow_extra_keys=False)
    assert script.reward_funcs == ["reward.reward"]
    assert data.datasets[0].data_files == "train.jsonl"
    assert training.num_generations == 8
    assert adapted(model, target_modules=get_peft_config(told).target_modules) == linear(model, layers)


def test_axolotl(model, layers):
    patterns = yaml.safe_load(written(axolotl, model, layers, FULL)["axolotl.yaml"])["unfrozen_parameters"]
    rules = [re.compile(re.sub(r"\.(?!\+)", r"\\.", pattern)) for pattern in patterns]  # its dots are literal
    assert by_hand(model, lambda name: any(rule.match(name) for rule in rules)) == wanted(model, layers)
    told = yaml.safe_load(written(axolotl, model, layers, LORA)["axolotl.yaml"])
    assert "unfrozen_parameters" not in told  # never both
    assert adapted(model, target_modules=told["lora_target_modules"]) == linear(model, layers)


def test_spectrum(model, layers):
    patterns = yaml.safe_load(written(spectrum, model, layers, FULL)["spectrum.yaml"])["unfrozen_parameters"]
    assert by_hand(model, lambda name: any(re.match(p, name) for p in patterns)) == wanted(model, layers)


def test_ms_swift(model, layers):
    words = options_of(written(ms_swift, model, layers, FULL)["train.sh"])
    pattern = words[words.index("--trainable_parameters_regex") + 1]
    assert by_hand(model, re.compile(pattern).search) == wanted(model, layers)
    assert words[words.index("--freeze_parameters_ratio") + 1] == "1"
    words = options_of(written(ms_swift, model, layers, LORA)["train.sh"])
    assert adapted(model, target_modules=words[words.index("--target_regex") + 1]) == linear(model, layers)


def test_verl(model, layers):
    words = options_of(written(verl, model, layers, LORA)["train.sh"])
    told = dict(word.split("=", 1) for word in words if "=" in word)
    pattern = told["actor_rollout_ref.model.target_modules"]
    assert pattern[0] == pattern[-1] == '"'  # a quoted string for Hydra; a list would be names
    assert adapted(model, target_modules=pattern[1:-1]) == linear(model, layers)
    gpus, shards = "trainer.n_gpus_per_node", "actor_rollout_ref.rollout.tensor_model_parallel_size"
    assert told[gpus] == told[shards] == "1"  # verl's own default of shards, 2, does not fit one GPU


def test_openrlhf(model, layers):
    words = options_of(written(openrlhf, model, layers, LORA)["train.sh"])
    start = words.index("--ds.lora.target_modules") + 1
    end = next(i for i in range(start, len(words)) if words[i].startswith("--"))
    assert adapted(model, target_modules=words[start:end]) == linear(model, layers)


def test_llama_factory(model, layers):
    pick = Pick.of(model, layers)
    told = yaml.safe_load(written(llama_factory, model, layers, LORA)["llama_factory.yaml"])
    assert adapted(model, target_modules=told["lora_target"].split(",")) == linear(model, layers)
    named_layers = "layers." in pick.prefix + "."
    assert (FULL in llama_factory.ways(pick)) == (len(layers) == 1 and named_layers)  # not GPT-2's transformer.h
    if FULL in llama_factory.ways(pick):
        told = yaml.safe_load(written(llama_factory, model, layers, FULL)["llama_factory.yaml"])
        blocks = list(  # BAdam's: names with layers.N. in the order of the parameters
            dict.fromkeys(m.group() for n, _ in model.named_parameters() if (m := re.match(r".*?layers\.\d+\.", n)))
        )
        block = blocks[told["badam_start_block"]]
        assert by_hand(model, lambda name: block in name) == wanted(model, layers)


def test_unsloth(model, layers):
    pick = Pick.of(model, layers)
    text = written(unsloth, model, layers, FULL)["train.py"]
    pattern = re.search(r're.compile\(r"(.*)"\)', text).group(1)
    assert by_hand(model, re.compile(pattern).match) == wanted(model, layers)
    assert text.index("from unsloth") < text.index("from trl")
    # its checkpointing has no gradient for a layer unless the layer's inputs ask for one
    assert "enable_input_require_grads" not in text
    compile(text, "train.py", "exec")
    text = written(unsloth, model, layers, LORA)["train.py"]
    compile(text, "train.py", "exec")
    names = json.loads(re.search(r"target_modules=(\[.*?\])", text).group(1).replace("'", '"'))
    found = adapted(model, target_modules=names, layers_to_transform=layers)
    assert (found == linear(model, layers)) == (LORA in unsloth.ways(pick))  # the vision tower's are caught too


def test_every_target_is_tested_here():
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert set(TARGETS.values()) <= tested
