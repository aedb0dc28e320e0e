"""Contributions measured (protocol, runs, sweeps), raced for, and learnt from (corpus, predictor, evaluation)."""
