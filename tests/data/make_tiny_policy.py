"""Makes the tiny policy that the tests use: a Llama of six layers that knows two-digit sums in part.

    python tests/data/make_tiny_policy.py

Trained from scratch on "12+34=46" (digits as characters) until it answers about half of the held-out sums greedily;
a few minutes on two cores, the same result for the same seed and thread count. Writes tests/data/tiny-policy and
tests/data/sums.jsonl.
"""

import json
import random
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from calibration.zoo.pretraining import encode, greedy_accuracy, make_tokenizer

HERE = Path(__file__).parent
SEED, BATCH, MAX_STEPS, TARGET = 0, 256, 6000, 0.5


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def question(a: int, b: int) -> tuple[str, str]:
    return f"{a}+{b}=", str(a + b)


def main() -> None:
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    rng = random.Random(SEED)
    pairs = [(a, b) for a in range(50) for b in range(50)]
    rng.shuffle(pairs)
    held, train = pairs[:500], pairs[500:]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    for step in range(MAX_STEPS):
        ids, labels = encode(tokenizer, [question(a, b) for a, b in rng.choices(train, k=BATCH)])
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 10 == 9:
            accuracy = greedy_accuracy(model, tokenizer, [question(a, b) for a, b in held])
            print(f"step {step + 1}: loss {loss.item():.3f}, greedy accuracy {accuracy:.3f}", flush=True)
            if accuracy >= TARGET:
                break
    tokenizer.save_pretrained(HERE / "tiny-policy")
    model.save_pretrained(HERE / "tiny-policy")
    rows = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a, b in held]
    (HERE / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
