"""Which layer of a language model to train by reinforcement learning: measured, ranked, and shown with its evidence.

The stages, in order, and where they live:

    model name -> probes.policy.Policy      load the model, find its layers
    task/data  -> probes.tasks.Task         prompts, reward, held-out prompts
               -> probes.rollouts           sampled completions, rewards, advantages
               -> probes.measure            the layer table: every probe, every layer
               -> calibration.race          all layers trained together for a few steps, raced (effort warmup)
               -> calibration.predictor     contribution of each layer with its interval, fitted on measured sweeps
               -> advisor.decision          the verdict, which may be no
               -> advisor.recommend         pick, baselines, cost
               -> advisor.verify            the pick trained, against base, full and middle (probes.training)
               -> advisor.reports           terminal, JSON, Markdown, HTML

    import advisor
    rec = advisor.recommend(model, tokenizer, "addition")
    rec.pick, rec.layers, rec.verdict
    rec.report("out")
    advisor.verify(model, tokenizer, "addition", layer=rec.pick).verdict
"""

import importlib

_PUBLIC = {
    "recommend": "advisor.pipeline",
    "Recommendation": "advisor.recommendation",
    "Verdict": "advisor.decision",
    "verify": "advisor.verification",
    "sweep": "advisor.sweeping",
    "calibrate": "advisor.calibrating",
    "Contributions": "advisor.contributions",
    "MeasuringOptions": "advisor.measuring_options",
    "Warmup": "advisor.warming",
    "RaceRules": "calibration.race",
    "Protocol": "calibration.protocol",
    "TrainingConfig": "probes.training",
    "estimate": "advisor.estimate",
    "TRLCallback": "advisor.trl_callback",
    "load_layers": "probes.training.saved_layers",
    "SamplingConfig": "probes.rollouts",
    "Task": "probes.tasks",
    "load_task": "probes.tasks",
    "load_policy": "probes.policy",
    "Progress": "probes.progress",
    "AdvisorError": "probes.errors",
    "UsageError": "probes.errors",
    "RunError": "probes.errors",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str):
    # Loaded when first used: torch takes seconds, and `advisor --help` needs none of it.
    if name not in _PUBLIC:
        raise AttributeError(f"module 'advisor' has no attribute '{name}'")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value
