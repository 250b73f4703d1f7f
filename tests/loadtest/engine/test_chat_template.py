from loadtest.engine.chat_template import content_text, render_chat


def test_turns_and_the_generation_prompt() -> None:
    """Every turn is closed, and the assistant's is opened."""
    assert render_chat([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_continuing_the_last_message() -> None:
    """The last turn stays open where the text ends, so that the prompt is that of the unbroken stream."""
    turns = [{"role": "user", "content": "Hi"}]
    continued = render_chat(
        [*turns, {"role": "assistant", "content": " bala"}],
        add_generation_prompt=False,
        continue_final_message=True,
    )
    assert continued == render_chat(turns) + " bala"


def test_tools_and_calls_are_part_of_the_prompt() -> None:
    """Tools come first, independent of their keys' order; calls stand in their turn."""
    one = render_chat([{"role": "user", "content": "x"}], [{"a": 1, "b": 2}])
    assert one == render_chat([{"role": "user", "content": "x"}], [{"b": 2, "a": 1}])
    assert one.startswith('<|im_start|>tools\n[{"a":1,"b":2}]<|im_end|>\n')
    call = {"id": "1", "function": {"name": "f", "arguments": "{}"}}
    assert "<|tool_call|>" in render_chat([{"role": "assistant", "content": None, "tool_calls": [call]}])


def test_content_in_parts() -> None:
    """Text parts are joined; an image leaves a trace that depends on it."""
    assert content_text([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]) == "ab"
    first = content_text([{"type": "image_url", "image_url": {"url": "1"}}])
    assert first and first != content_text([{"type": "image_url", "image_url": {"url": "2"}}])
    assert content_text(None) == ""
