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
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).parent
SEED, BATCH, MAX_STEPS, TARGET = 0, 256, 6000, 0.5


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a printable ASCII character."""
    words = ["<pad>", "<eos>", "<unk>", "\n", *map(chr, range(32, 127))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )


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


def main() -> None:
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    rng = random.Random(SEED)
    pairs = [(a, b) for a in range(50) for b in range(50)]
    rng.shuffle(pairs)
    held, train = pairs[:500], pairs[500:]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    for step in range(MAX_STEPS):
        texts = [f"{a}+{b}={a + b}" for a, b in rng.choices(train, k=BATCH)]
        ids, labels = encode(tokenizer, texts)
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 10 == 9:
            accuracy = greedy_accuracy(model, tokenizer, held)
            print(f"step {step + 1}: loss {loss.item():.3f}, greedy accuracy {accuracy:.3f}", flush=True)
            if accuracy >= TARGET:
                break
    tokenizer.save_pretrained(HERE / "tiny-policy")
    model.save_pretrained(HERE / "tiny-policy")
    rows = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a, b in held]
    (HERE / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels (B, T); only answers and the end are learnt."""
    rows = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in texts]
    width = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
    labels = ids.clone()
    for i, (text, row) in enumerate(zip(texts, rows, strict=True)):
        labels[i, : text.index("=") + 1] = -100
        labels[i, len(row) :] = -100
    return ids, labels


@torch.no_grad()
def greedy_accuracy(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, pairs: list[tuple[int, int]]) -> float:
    """Share of sums whose every answer token is the likeliest one."""
    ids, labels = encode(tokenizer, [f"{a}+{b}={a + b}" for a, b in pairs])
    guess, truth = model(input_ids=ids).logits[:, :-1].argmax(-1), labels[:, 1:]
    return float(((guess == truth) | (truth == -100)).all(1).float().mean())


if __name__ == "__main__":
    main()
