"""Interrupts wherever a module can be interrupted: what a signal's handler may do to the main thread."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable
from functools import cache
from types import CodeType, FrameType, ModuleType
from typing import Any

import pytest

Interrupted = Callable[[Callable[[], object]], None]

_LOOKS_FOR_SIGNALS = {"CALL", "CALL_FUNCTION_EX", "CALL_KW", "JUMP_BACKWARD", "RESUME"}
"""After these the interpreter looks whether a signal came, and calls its handler; not after a call that raised."""


def interrupted_everywhere(module: ModuleType, run: Callable[[Interrupted], None]) -> int:
    """Call ``run(interrupted)`` once for each place where the module can be interrupted; how many there are.

    ``interrupted(work)`` calls ``work()`` and raises KeyboardInterrupt in it, at the next place each time.
    """
    if sys.version_info[:2] != (3, 11):
        pytest.skip("where the interpreter looks for signals is known here of CPython 3.11 only")
    step = 0
    while True:
        step += 1
        injector = _Injector(module, step)
        run(injector.interrupted)
        if injector.left > 0:
            return step - 1


class _Injector:
    def __init__(self, module: ModuleType, step: int) -> None:
        self.left = step
        self._module = module
        self._last: dict[FrameType, str] = {}

    def interrupted(self, work: Callable[[], object]) -> None:
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            work()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
            self._last.clear()

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename != self._module.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            last, name = self._last.get(frame), _names(frame.f_code)[frame.f_lasti]
            self._last[frame] = name
            if last in _LOOKS_FOR_SIGNALS and name != "PUSH_EXC_INFO":
                self.left -= 1
                if self.left == 0:
                    raise KeyboardInterrupt
        return self._trace


@cache
def _names(code: CodeType) -> dict[int, str]:
    return {instruction.offset: instruction.opname for instruction in dis.get_instructions(code)}
