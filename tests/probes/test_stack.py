import pytest
from policies import ARCHITECTURES, make_model
from torch import nn

from probes.errors import UsageError
from probes.stack import find_stack, prefix_in_files


def test_stack_of_every_architecture(architecture):
    stack = architecture.stack
    assert stack.prefix == ARCHITECTURES[architecture.name][0]
    assert len(stack) == 3
    names = dict(architecture.model.named_parameters())
    for k in range(3):
        found = stack.parameters(k)
        assert found
        assert all(names[name] is parameter for name, parameter in found.items())
        assert sum(p.numel() for p in found.values()) == stack.sizes()[k]


def test_tied_embeddings_are_known(tiny):
    assert tiny.tied_embeddings
    assert not tiny.from_objects(make_model("Llama"), tiny.tokenizer).tied_embeddings


@pytest.mark.parametrize(
    ("names", "prefix", "found"),
    [
        (["model.layers.0.a", "model.norm.weight"], "model.layers", "model.layers"),
        (["h.0.attn", "wte.weight"], "transformer.h", "h"),
        (["language_model.model.layers.0.a"], "model.layers", "language_model.model.layers"),
        (["vision.layers.0.a", "model.layers.0.a"], "model.layers", "model.layers"),
        (["blocks.0.a"], "model.layers", None),
        (["model.layersX.0.a", "modelXlayers.0.a"], "model.layers", None),
        (["model.layers.10.mlp.experts.1.w1"], "model.layers", "model.layers"),
    ],
)
def test_prefix_in_files(names, prefix, found):
    assert prefix_in_files(names, prefix) == found


def test_model_without_layers_is_refused():
    class Flat(nn.Module):
        pass

    with pytest.raises(UsageError, match="No decoder layers were found in a Flat"):
        find_stack(Flat())
