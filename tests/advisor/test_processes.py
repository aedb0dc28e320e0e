"""Two real processes on the CPU (gloo), started by accelerate launch, train one verification together with TRL."""

import json
import os
import subprocess
import sys

from deadly import write_reward
from policies import SUMS, TINY


def test_two_processes_verify_together(tmp_path):
    reward = write_reward(tmp_path, at_call=10**9)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "advisor.cli"]
    verify = ["verify", str(TINY), "--layer", "4", "--data", str(SUMS), "--reward", reward, "--engine", "trl"]
    verify += ["--steps", "2", "--prompts-per-step", "8", "--max-new-tokens", "4", "--learning-rates", "1e-3"]
    verify += ["--seeds", "1", "--validation", "20", "--held-out", "60", "--output-dir", str(tmp_path / "run")]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([*launch, *verify], capture_output=True, text=True, env=environment)
    assert (tmp_path / "run" / "verification.json").exists(), run.stderr[-2000:]
    found = json.loads((tmp_path / "run" / "verification.json").read_text())
    assert run.stdout.count("Verification:") == 1
    assert [(r["arm"], len(r["rewards"])) for r in found["runs"]] == [("layer 3", 2), ("layer 4", 2), ("full", 2)]
    lines = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines].count("run") == 3
    pids = (tmp_path / "calls").read_text().split()
    assert len(set(pids)) == 2  # both sampled and scored
    assert pids.count(pids[0]) == len(pids) / 2
    assert run.returncode in (0, 1)  # the launcher's own code where the pick is not confirmed
