"""TGI's chat requests as jobs: the template, and tools as a grammar with a hidden way out.

Tools are guided decoding of `{"function": {"_name": ..., <arguments>}}`. Where the model may choose, the
grammar has a function `no_tool`; choosing that costs a second generation, without tools.
"""

from dataclasses import dataclass, replace
from uuid import uuid4

import msgspec

from loadtest.engine.chat_template import render_chat
from loadtest.engine.guided import tool_arguments
from loadtest.engine.tgi_request_wire import ChatRequest, NamedTool, Parameters, Tool
from loadtest.engine.tgi_validation import Job, template_error, tool_error

NO_TOOL = ('{"function":{"_name":"no_tool"}}',)


@dataclass(frozen=True, slots=True)
class ChatJob:
    """What to generate for a chat request."""

    job: Job
    hidden: Job | None
    """The generation that ends in `no_tool` and comes before; nobody sees it."""
    calls_tool: bool
    """Whether the text is a tool call."""
    tool_call_id: str


def chat_job(asked: ChatRequest, *, auto_calls: bool) -> ChatJob:
    """Template and tools applied; raises `Failure` (422) for what they do not allow.

    `auto_calls`: whether a model that may call a tool does so, unless it was just given an answer.
    """
    if asked.response_format is not None and asked.tools is not None:
        raise tool_error("Grammar and tools are mutually exclusive")
    if not asked.messages:
        raise template_error("invalid operation: the template needs at least one message")
    plain = Job(_prompt(asked, None), _parameters(asked), logprobs=bool(asked.logprobs))
    choice = _choice(asked)
    if asked.tools is None or choice == "none":
        return ChatJob(plain, None, calls_tool=False, tool_call_id=_call_id(asked))
    tools = [_named(asked.tools, choice)] if choice not in ("auto", "required") else list(asked.tools)
    called = choice != "auto" or (auto_calls and asked.messages[-1].role != "tool")
    guided = replace(plain, inputs=_prompt(asked, tools))
    if not (called and tools):
        hidden = replace(guided, forced=NO_TOOL)
        return ChatJob(plain, hidden, calls_tool=False, tool_call_id=_call_id(asked))
    job = replace(guided, forced=_call_text(tools[0]))
    return ChatJob(job, None, calls_tool=True, tool_call_id=_call_id(asked))


def _choice(asked: ChatRequest) -> str:
    """`auto`, `none`, `required`, or a function's name."""
    if isinstance(asked.tool_choice, NamedTool):
        return asked.tool_choice.function.name
    return asked.tool_choice or "auto"


def _named(tools: tuple[Tool, ...], name: str) -> Tool:
    for tool in tools:
        if tool.function.name == name:
            return tool
    raise tool_error(f"Tool with name {name} not found")


def _call_text(tool: Tool) -> tuple[str, ...]:
    """The guided text, in parts that no token spans.

    After the name come a quote and a comma in one token, as in every BPE: TGI drops that comma, but not one
    that comes alone.
    """
    function = msgspec.to_builtins(tool.function)
    arguments = tool_arguments({"parameters": function.get("parameters", function.get("arguments"))})
    name = msgspec.json.encode(tool.function.name).decode()
    opening = f'{{"function":{{"_name":{name}'
    if arguments == "{}":
        return opening, "}}"
    return opening.removesuffix('"'), '",', f"{arguments[1:]}}}"


def _call_id(asked: ChatRequest) -> str:
    """One more than the largest id so far; random where an id is no number."""
    ids = [call.get("id", "") for message in asked.messages for call in message.tool_calls or ()]
    if not all(isinstance(one, str) and one.isdigit() for one in ids):
        return str(uuid4())
    return str(max((int(one) + 1 for one in ids), default=0))


def _prompt(asked: ChatRequest, tools: list[Tool] | None) -> str:
    """The template's text. A last message of the assistant stays open, trimmed at its end."""
    messages = [
        {"role": message.role, "content": message.text()}
        if message.content is not None
        else {"role": message.role, "tool_calls": message.tool_calls}
        for message in asked.messages
    ]
    shown = None if tools is None else [msgspec.to_builtins(tool) for tool in tools]
    if asked.messages[-1].role != "assistant" or asked.messages[-1].content is None:
        return render_chat(messages, shown)
    return render_chat(messages, shown, add_generation_prompt=False, continue_final_message=True).rstrip()


def _parameters(asked: ChatRequest) -> Parameters:
    """OpenAI's names to TGI's. A presence penalty becomes a repetition penalty two higher."""
    greedy = asked.temperature == 0
    return Parameters(
        temperature=None if greedy else asked.temperature,
        repetition_penalty=None if asked.presence_penalty is None else asked.presence_penalty + 2,
        frequency_penalty=asked.frequency_penalty,
        top_p=asked.top_p,
        do_sample=not greedy,
        max_new_tokens=asked.max_tokens if asked.max_tokens is not None else asked.max_completion_tokens,
        stop=asked.stop or (),
        details=True,
        seed=asked.seed,
        top_n_tokens=asked.top_logprobs,
        grammar=asked.response_format,
        adapter_id=None if asked.model == "tgi" else asked.model,
    )
