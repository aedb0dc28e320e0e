import torch
from policies import SUMS

import advisor
from probes.tasks import load_task


def exact(completions, answer, **kwargs):
    return [float(c.strip() == a) for c, a in zip(completions, answer, strict=True)]


def test_trl_trains_exactly_the_recommended_layer(own_tiny, tmp_path):
    """A complete example: recommend, then GRPO with TRL on the pick."""
    import datasets
    from trl import GRPOConfig, GRPOTrainer

    task = load_task(data=str(SUMS), reward="exact")
    model, tokenizer = own_tiny.model, own_tiny.tokenizer
    rec = advisor.recommend(
        model, tokenizer, task, sampling=advisor.SamplingConfig(groups=8, max_prompts=32, max_new_tokens=4)
    )
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    callback = advisor.TRLCallback(rec)
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=exact,
        args=GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=32,
            num_generations=8,
            max_completion_length=4,
            max_steps=2,
            learning_rate=1e-3,
            gradient_checkpointing=True,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
        ),
        train_dataset=datasets.Dataset.from_list([{k: r[k] for k in ("prompt", "answer")} for r in task.train]),
        processing_class=tokenizer,
        callbacks=[callback],
    )
    trainer.train()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert changed <= set(callback.frozen.names)
    prefixes = tuple(f"{own_tiny.stack.prefix}.{k}." for k in rec.pick)
    assert all(name.startswith(prefixes) for name in callback.frozen.names)
    assert all(p.requires_grad for p in model.parameters())  # as found
