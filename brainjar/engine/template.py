"""A GGUF's chat template, rendered as Transformers renders it: the sandboxed Jinja environment that its authors wrote it for."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

Message = dict[str, str]
"""{"role": "system" | "user" | "assistant", "content": text}."""

PLAIN: Final = (
    "{% for m in messages %}{{ '### ' + m['role'] + '\n' + m['content'] + '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### assistant\n' }}{% endif %}"
)
"""For a GGUF that carries none: base models."""


class TemplateError(Exception):
    """The template does not take these messages; many refuse a system role, or two messages of one role in a row."""


class ChatTemplate:
    def __init__(self, source: str, *, bos: str, eos: str) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
        environment.filters["tojson"] = lambda value, **kw: json.dumps(value, ensure_ascii=False, **kw)
        environment.globals.update(raise_exception=_refuse, strftime_now=lambda f: time.strftime(f))
        self._template = environment.from_string(source)
        self._tokens = {"bos_token": bos, "eos_token": eos}

    def render(self, messages: Sequence[Message], *, generate: bool) -> str:
        """The conversation as text; with `generate`, open for the assistant's answer. Raise `TemplateError`."""
        context: dict[str, Any] = self._tokens | {"messages": list(messages), "add_generation_prompt": generate}
        try:
            return self._template.render(context)
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
            raise TemplateError(str(error)) from error


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
