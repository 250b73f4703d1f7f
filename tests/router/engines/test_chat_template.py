"""Chats become prompts as the model's own template says, and nothing a message holds can do more."""

from typing import Any

import pytest

from router.api.errors import EndpointNotSupported, RequestError
from router.engines.chat_template import ChatTemplate

CHATML = """{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{%- endif %}"""
USER = {"role": "user", "content": "Hi"}


def test_a_template_in_common_use() -> None:
    """Line breaks after blocks and the space before them are the template's layout, not the prompt's."""
    system = {"role": "system", "content": "Be brief."}
    assert ChatTemplate(CHATML).render([system, USER]) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("source", "prompt"),
    [
        ("{{ bos_token }}{{ messages[0].content }}", "Hi"),
        ("{{ messages | tojson }}", '[{"role":"user","content":"Hi"}]'),
        ("{{ {'a': '<'} | tojson(indent=2) }}", '{\n  "a": "<"\n}'),
        ("{% for m in messages %}{% if loop.last %}{% break %}{% endif %}x{% endfor %}y", "y"),
        ("{% if tools %}x{% endif %}{{ strftime_now('%Y') | length }}", "4"),
        ("{{ add_generation_prompt }}", "True"),
        ("{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns.a }}", "2"),
    ],
)
def test_what_templates_may_use(source: str, prompt: str) -> None:
    """The names that transformers gives them."""
    assert ChatTemplate(source).render([USER]) == prompt


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Hi", "Hi"),
        ([{"type": "text", "text": "H"}, {"type": "text", "text": "i"}], "Hi"),
        ([], ""),
        (None, ""),
        ("{{ 7 * 7 }}", "{{ 7 * 7 }}"),
    ],
)
def test_content_is_one_text(content: Any, text: str) -> None:
    """Parts are joined; text that looks like a template stays text."""
    template = ChatTemplate("{{ messages[0].content }}")
    assert template.render([{"role": "user", "content": content}]) == text


def test_pictures_are_for_another_engine() -> None:
    """The flow then asks another replica."""
    picture = {"type": "image_url", "image_url": {"url": "data:"}}
    with pytest.raises(EndpointNotSupported):
        ChatTemplate("x").render([{"role": "user", "content": [picture]}])


@pytest.mark.parametrize("message", ["Hi", None, {}, {"role": 7}])
def test_what_is_no_message_is_the_clients_mistake(message: Any) -> None:
    """Named as such."""
    with pytest.raises(RequestError):
        ChatTemplate("x").render([message])


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages[7].content }}",
        "{{ 1 / 0 }}",
        "{{ 'x' + 1 }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__init__.__globals__ }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    ],
)
def test_a_template_that_fails_or_reaches_out_is_refused(source: str) -> None:
    """With 400 and no effect: templates come with models, messages from strangers."""
    with pytest.raises(RequestError) as raised:
        ChatTemplate(source).render([USER])
    assert raised.value.param == "messages"


def test_the_templates_own_words_reach_the_client() -> None:
    """They say what is wrong with the messages."""
    with pytest.raises(RequestError, match="roles must alternate"):
        ChatTemplate("{{ raise_exception('roles must alternate') }}").render([USER])


@pytest.mark.parametrize("source", ["{% for %}", "{{", "{% if x %}"])
def test_what_is_no_template_is_found_at_once(source: str) -> None:
    """When it is compiled."""
    with pytest.raises(ValueError, match="not valid Jinja"):
        ChatTemplate(source)
