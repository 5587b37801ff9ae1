"""C functions that call Python methods: what WSPPROC_TABLE and WSPUPCALLTABLE are filled with.

No exception crosses into C. ctypes would print it and return 0, which is success for most of these
functions; here it becomes ``*lpErrno`` and the value the function fails with.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from joinleaf.errors import SpiError
from joinleaf.spi import codes
from joinleaf.winsock.declarations import OTHER_FUNCTIONS, PROVIDER_FUNCTIONS, UPCALLS
from joinleaf.winsock.memory import write_error
from joinleaf.winsock.types import FUNCTION_TYPES, INVALID_SOCKET, SOCKET_ERROR, WSA_INVALID_EVENT

__all__ = ["error_value", "thunk"]

_log: Final = logging.getLogger("joinleaf.winsock")

_PROTOTYPES: Final = {**PROVIDER_FUNCTIONS, **UPCALLS, **OTHER_FUNCTIONS}
_FAILURES: Final = {"SOCKET": INVALID_SOCKET, "BOOL": 0, "WSAEVENT": WSA_INVALID_EVENT}


def error_value(name: str) -> int:
    """What a function returns when it fails: INVALID_SOCKET, 0 (BOOL, event) or SOCKET_ERROR."""
    if name == "WPUFDIsSet":
        return 0  # an int that is a truth value
    return _FAILURES.get(_PROTOTYPES[name].returns, SOCKET_ERROR)


def thunk(name: str, target: Any) -> Any:
    """A C function pointer that calls ``target.<name>`` with the raw parameters.

    The method is looked up at each call, so that it can be replaced. Pointers arrive as addresses
    or None, handles and numbers as int. The caller keeps the result alive as long as C may call it.
    """
    failure = error_value(name)
    reports = _PROTOTYPES[name].parameter_names[-1] == "lpErrno"

    def call(*args: Any) -> int:
        try:
            result = getattr(target, name)(*args)
            if isinstance(result, int):
                return result
            _log.error("%s returned %r where a number is needed", name, result)
            code = codes.WSASYSCALLFAILURE
        except SpiError as error:
            code = error.code
        except KeyboardInterrupt:
            code = codes.WSAEINTR
        except BaseException:
            _log.exception("%s failed", name)
            code = codes.WSASYSCALLFAILURE
        if reports:
            write_error(args[-1], code)
        return failure

    return FUNCTION_TYPES[name](call)
