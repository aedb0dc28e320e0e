import pytest

from probes.errors import UsageError
from probes.prompts import encode_prompt

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[me]{% endif %}"
)
CHAT = [{"role": "system", "content": "add"}, {"role": "user", "content": "1+1"}]


@pytest.fixture
def tokenizer(own_tiny):
    return own_tiny.tokenizer


@pytest.mark.parametrize(
    ("template", "prompt", "style", "text"),
    [
        (None, "1+1=", "auto", "1+1="),
        (None, "1+1=", "plain", "1+1="),
        (None, CHAT, "plain", "add\n1+1"),
        (TEMPLATE, "1+1=", "auto", "[user]1+1=[me]"),
        (TEMPLATE, "1+1=", "chat", "[user]1+1=[me]"),
        (TEMPLATE, "1+1=", "plain", "1+1="),
        (TEMPLATE, CHAT, "auto", "[system]add[user]1+1[me]"),
    ],
)
def test_what_the_policy_reads(tokenizer, template, prompt, style, text):
    tokenizer.chat_template = template
    assert tokenizer.decode(encode_prompt(prompt, tokenizer, style)) == text


@pytest.mark.parametrize(("prompt", "style"), [(CHAT, "auto"), (CHAT, "chat"), ("1+1=", "chat")])
def test_chat_without_template_is_refused(tokenizer, prompt, style):
    with pytest.raises(UsageError, match="no chat template.*--prompt-style plain"):
        encode_prompt(prompt, tokenizer, style)


def test_unknown_style(tokenizer):
    with pytest.raises(UsageError, match="Prompt style 'chatty'"):
        encode_prompt("1", tokenizer, "chatty")
