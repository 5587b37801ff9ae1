"""Writes the reference pages that are read off the code: state tables and error numbers.

``python docs/generate.py`` writes them; a test compares them with what it would write.
"""

from __future__ import annotations

import errno
import inspect
import tomllib
from enum import Enum
from pathlib import Path
from typing import Any

import typer

import joinleaf
from joinleaf.cli.app import app
from joinleaf.cli.exits import ExitCode
from joinleaf.core.leaf_nonrooted import NonrootedLeafMachine
from joinleaf.core.leaf_rooted import LeafMachine
from joinleaf.core.leg import LegMachine
from joinleaf.core.root import RootMachine
from joinleaf.core.tables import Machine
from joinleaf.spi.codes import TABLE, name_of

HERE = Path(__file__).parent
MACHINES: tuple[type[Machine[Any, Any, Any]], ...] = (
    RootMachine,
    LeafMachine,
    NonrootedLeafMachine,
    LegMachine,
)


def states_page() -> str:
    """Every machine as a table of its legal transitions, and what is refused."""
    lines = [
        "# State tables",
        "",
        "Read off the code (`python docs/generate.py`). Every (state, input) pair is decided",
        "exactly once: legal (a row here), refused (the caller's mistake, with a WSAE number, the",
        "state unchanged), or stale (a late or repeated answer of the network: counted, ignored).",
        "Clauses are those of the specification page of WSPJoinLeaf; *model* and *design* name",
        "sections of the documents around it.",
    ]
    for machine in MACHINES:
        lines += ["", f"## {machine.__name__}", "", (machine.__doc__ or "").split("\n\n")[0], ""]
        lines += ["| state | input | next | actions | clause |", "|---|---|---|---|---|"]
        for (state, kind), row in machine.TABLE.items():
            actions = ", ".join(_word(action) for action in row.actions) or "-"
            lines.append(
                f"| {_word(state)} | {_word(kind)} | {_word(row.next)} | {actions} | {row.clause} |"
            )
        if machine.REFUSED:
            lines += ["", "Refused:", "", "| state | input | error |", "|---|---|---|"]
            lines += [
                f"| {_word(state)} | {_word(kind)} | {name_of(code)} {code} |"
                for (state, kind), code in machine.REFUSED.items()
            ]
    return "\n".join([*lines, ""])


def _word(member: Enum) -> str:
    return member.name.lower().replace("_", " ")


def errors_page() -> str:
    """The one table: WSAE number, exception, errno, meaning."""
    lines = [
        "# Errors",
        "",
        "Read off the code (`python docs/generate.py`). Whatever the session API raises derives",
        "from `joinleaf.SessionError`; what the network causes derives from the closest built-in",
        "as well: `JoinRefusedError` is a `ConnectionRefusedError`, `JoinTimeoutError` and",
        "`SessionTimeoutError` are `TimeoutError`s, `SessionBrokenError` is a `ConnectionError`,",
        "and the rest are `OSError`s. Each carries `code` (the WSAE number), `errno`, `hint` (the",
        "way out, also part of the text), `reason` and `data` (what the other side said).",
        "",
        "Wrong arguments stay `ValueError` and `TypeError`.",
        "",
        "| number | name | exception | while joining | errno | meaning |",
        "|---|---|---|---|---|---|",
    ]
    for code, row in TABLE.items():
        joining = row.joining.__name__ if row.joining is not None else ""
        number = errno.errorcode.get(row.errno, str(row.errno))
        lines.append(
            f"| {code} | {name_of(code)} | {row.error.__name__} | {joining} | {number} "
            f"| {row.meaning} |"
        )
    return "\n".join([*lines, ""])


FUNCTIONS = (joinleaf.open_root, joinleaf.join, joinleaf.listen)
CLASSES = (
    joinleaf.Session,
    joinleaf.Root,
    joinleaf.Leaf,
    joinleaf.Listener,
    joinleaf.RootLeaf,
    joinleaf.Leaves,
    joinleaf.Message,
    joinleaf.Batch,
    joinleaf.Request,
    joinleaf.LeafJoined,
    joinleaf.LeafLeft,
    joinleaf.LeafRefused,
    joinleaf.MessagesLost,
    joinleaf.QosChanged,
    joinleaf.SessionEnded,
    joinleaf.FlowSpec,
    joinleaf.Qos,
    joinleaf.Address,
    joinleaf.SessionAddress,
)


def api_page() -> str:
    """The session API: signatures and docstrings."""
    lines = [
        "# The session API",
        "",
        "Read off the code (`python docs/generate.py`). Everything here is importable from",
        "`joinleaf`. Times are seconds, rates bytes per second, sizes bytes. Errors are on",
        "[a page of their own](errors.md). `joinleaf.aio` has the same names and arguments for",
        "[asyncio](../how-to/asyncio.md); what waits is awaited there.",
    ]
    for function in FUNCTIONS:
        lines += ["", f"## {function.__name__}", "", *_entry(function)]
    for kind in CLASSES:
        lines += ["", f"## {kind.__name__}", "", *_fenced(inspect.getdoc(kind) or "")]
        for name, member in vars(kind).items():
            if name.startswith("_"):
                continue
            if isinstance(member, property) and member.fget is not None:
                doc = (inspect.getdoc(member) or "").split("\n\n")[0].replace("\n", " ")
                lines += ["", f"* `{name}`: {doc}"]
            elif isinstance(member, classmethod | staticmethod) or callable(member):
                lines += ["", f"### {kind.__name__}.{name}", "", *_entry(getattr(kind, name))]
    return "\n".join([*lines, ""])


def _entry(function: Any) -> list[str]:
    """Signature, a line for each parameter, and docstring of one callable."""
    signature = inspect.signature(function)
    head = [f"{function.__name__}("]
    starred = False
    for parameter in signature.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            starred = True
            head.append("    *,")
        head.append(f"    {_parameter(parameter)},")
    result = signature.return_annotation
    head.append(")" if result is signature.empty else f") -> {str(result).strip(chr(39))}")
    call = head[0] + head[1][:] if len(head) == 2 else "\n".join(head)
    return _fenced(f"{call}\n\n{inspect.getdoc(function) or ''}")


def _parameter(parameter: inspect.Parameter) -> str:
    text = parameter.name
    if parameter.annotation is not parameter.empty:
        text += f": {str(parameter.annotation).strip(chr(39))}"
    if parameter.default is not parameter.empty:
        text += f" = {parameter.default!r}"
    return text


def _fenced(text: str) -> list[str]:
    return ["```text", *text.strip().splitlines(), "```"]


CODES = {
    ExitCode.OK: "all well; for `send`: every leaf has everything, verified",
    ExitCode.FAILURE: "it did not come about; the last line says why",
    ExitCode.USAGE: "the command line is wrong; nothing has happened",
    ExitCode.PARTIAL: "sent, but not every leaf has everything",
    ExitCode.REFUSED: "the root turned this host away, or out",
    ExitCode.INTERRUPTED: "Ctrl-C, SIGTERM or a closed terminal; the others saw a clean leave",
}


def command_line_page() -> str:
    """Every verb with its options, and the exit codes."""
    lines = [
        "# The command line",
        "",
        "Read off the code (`python docs/generate.py`). Data go to standard output, talk to",
        "standard error. Progress shows on a terminal only, plain lines elsewhere; `NO_COLOR` is",
        "honoured. With `--json` every event is one JSON object on a line of standard output, and",
        "the last line is a summary. `joinleaf --install-completion` sets up the shell.",
        "",
        "## Exit codes",
        "",
        "| code | meaning |",
        "|---|---|",
        *(f"| {int(code)} | {text} |" for code, text in CODES.items()),
    ]
    command: Any = typer.main.get_command(app)
    for name, verb in command.commands.items():
        lines += ["", f"## joinleaf {name}", "", " ".join((verb.help or "").split()), ""]
        lines += ["| option | variable | default | meaning |", "|---|---|---|---|"]
        for parameter in verb.params:
            words = ", ".join(f"`{word}`" for word in (*parameter.opts, *parameter.secondary_opts))
            if parameter.param_type_name == "argument":
                words = f"`{parameter.name.upper()}`"
            default = parameter.default
            shown = "" if default is None or default is False else f"`{default}`"
            help_text = " ".join((getattr(parameter, "help", "") or "").split()).replace("|", "or")
            lines.append(f"| {words} | {parameter.envvar or ''} | {shown} | {help_text} |")
    return "\n".join([*lines, ""])


ROWS = HERE.parent / "tests" / "conformance" / "rows.toml"


def conformance_page() -> str:
    """Every row of the conformance tests: what is demanded, whether it is met, what proves it."""
    rows = tomllib.loads(ROWS.read_text(encoding="utf-8"))["row"]
    clauses = [row for row in rows if row["id"].startswith("JL-")]
    met = sum(row["status"] == "met" for row in clauses)
    cells_met = sum(row["status"] == "met" for row in rows) - met
    lines = [
        "# Conformance",
        "",
        "Read off `tests/conformance/rows.toml` (`python docs/generate.py`). Rows JL-1 to JL-133",
        "are the statements of the specification page of WSPJoinLeaf, in our own words; the others",
        "are the cells of the state tables of the model around it. Each is proved by the tests",
        "named in its row, through `joinleaf.winsock`, on the entries given there.",
        "",
        f"Of {len(clauses)} statements {met} are met, of {len(rows) - len(clauses)} cells "
        f"{cells_met}.",
        "",
        "## What differs",
        "",
    ]
    lines += [
        f"* **{row['id']}** ({row['status']}): {row['text']} {row['reason']}"
        for row in rows
        if row["status"] != "met"
    ]
    source = ""
    for row in rows:
        if row["source"] != source:
            source = row["source"]
            lines += ["", f"## {source[:1].upper()}{source[1:]}", ""]
            lines += ["| id | level | what | status | entries | test |", "|---" * 6 + "|"]
        tests = ", ".join(test.partition("::")[2].removeprefix("test_") for test in row["test"])
        lines.append(
            f"| {row['id']} | {row['level']} | {row['text']} | {row['status']} "
            f"| {', '.join(row['entries'])} | {tests.replace('_', ' ')} |"
        )
    return "\n".join([*lines, ""])


PAGES = {
    HERE / "reference" / "command-line.md": command_line_page,
    HERE / "reference" / "api.md": api_page,
    HERE / "reference" / "states.md": states_page,
    HERE / "reference" / "errors.md": errors_page,
    HERE / "reference" / "conformance.md": conformance_page,
}


def main() -> None:
    """Write the pages."""
    for path, page in PAGES.items():
        path.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
