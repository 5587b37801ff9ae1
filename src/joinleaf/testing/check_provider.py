"""``check_provider``: does a provider keep the rules of the seam? For whoever writes one.

    report = check_provider(MyProvider, ["my://127.0.0.1:0", "my://127.0.0.1:0?plane=nonrooted"])
    assert report.ok, report

Every check gets a provider of its own, in a thread of its own, and is given up when its time is
over. A provider that raises what it must not, hangs or lies therefore fails checks; it raises
nothing out of here. Nothing is asked of it but what ``spi/provider.py`` says.
"""

from __future__ import annotations

import enum
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from joinleaf.errors import SpiError
from joinleaf.spi.codes import name_of
from joinleaf.spi.protocol_info import ProtocolInfo
from joinleaf.spi.provider import Provider
from joinleaf.testing.provider_bench import Bench, CheckFailed, NotApplicable
from joinleaf.testing.provider_checks import CHECKS, ENTRY_CHECKS, ProviderCheck
from joinleaf.values import SessionAddress

__all__ = ["CheckResult", "Report", "Verdict", "check_names", "check_provider"]

_TIMES_PATIENCE: Final = 4
"""A check is given up after so many times the patience for one step: it has a few steps."""


class Verdict(enum.StrEnum):
    """How one check came out."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check of one address.

    Attributes:
        name: Which check, a sentence.
        address: Which session address.
        verdict: How it came out.
        reason: Why, if it did not pass.
        clause: Where the rule is written.
        seconds: How long it took.
    """

    name: str
    address: str
    verdict: Verdict
    reason: str = ""
    clause: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.verdict:14} {self.address}  {self.name}{reason}"


@dataclass(frozen=True, slots=True)
class Report:
    """All checks, in the order in which they ran. Its text names what failed."""

    results: tuple[CheckResult, ...]

    @property
    def ok(self) -> bool:
        """Whether something passed and nothing failed."""
        return not self.failed and bool(self.passed)

    @property
    def passed(self) -> tuple[CheckResult, ...]:
        """Those that passed."""
        return self._with(Verdict.PASSED)

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        """Those that failed."""
        return self._with(Verdict.FAILED)

    @property
    def not_applicable(self) -> tuple[CheckResult, ...]:
        """Those that say nothing about this provider."""
        return self._with(Verdict.NOT_APPLICABLE)

    def _with(self, verdict: Verdict) -> tuple[CheckResult, ...]:
        return tuple(result for result in self.results if result.verdict is verdict)

    def __str__(self) -> str:
        counts = (
            f"{len(self.passed)} passed, {len(self.failed)} failed, "
            f"{len(self.not_applicable)} not applicable"
        )
        return "\n".join([counts, *map(str, self.failed)])


def check_names() -> tuple[str, ...]:
    """Names of all checks, in the order in which they run."""
    return tuple(check.name for check in (*ENTRY_CHECKS, *CHECKS))


def check_provider(
    make: Callable[[], Provider],
    addresses: Iterable[SessionAddress | str],
    *,
    patience: float = 5.0,
    only: Iterable[str] | None = None,
) -> Report:
    """Check a provider against the seam's rules, once for each session address.

    Args:
        make: Gives a provider; called once for each check.
        addresses: Session addresses to check it with: one for each entry is best. Where a rooted
            provider has ports, give port 0. Nothing else may use them meanwhile.
        patience: Seconds that a step may take which should happen, above 0. A check is given up
            after four times that.
        only: Names of the checks to run; None: all.

    Returns:
        The report. Whatever the provider does, nothing is raised but ValueError for an address
        that is none or a name that no check has.
    """
    parsed = [SessionAddress.parse(address) for address in addresses]
    wanted = set(check_names()) if only is None else set(only)
    if unknown := sorted(wanted - set(check_names())):
        raise ValueError(f"no check is called {unknown[0]!r}; see check_names()")
    chosen = [check for check in (*ENTRY_CHECKS, *CHECKS) if check.name in wanted]
    results = [
        _run_bounded(check, make, address, patience) for address in parsed for check in chosen
    ]
    return Report(tuple(results))


def _run_bounded(
    check: ProviderCheck,
    make: Callable[[], Provider],
    address: SessionAddress,
    patience: float,
) -> CheckResult:
    """Run one check in a thread, and give it up when its time is over."""
    verdicts: list[tuple[Verdict, str]] = []
    thread = threading.Thread(
        target=lambda: verdicts.append(_run(check, make, address, patience)),
        name=f"check: {check.name}",
        daemon=True,  # one that hangs must not keep the interpreter
    )
    start = time.monotonic()
    thread.start()
    thread.join(_TIMES_PATIENCE * patience)
    verdict, reason = verdicts[0] if verdicts else (Verdict.FAILED, _where_it_hangs(thread))
    seconds = time.monotonic() - start
    return CheckResult(check.name, str(address), verdict, reason, check.clause, seconds)


def _run(
    check: ProviderCheck,
    make: Callable[[], Provider],
    address: SessionAddress,
    patience: float,
) -> tuple[Verdict, str]:
    try:
        provider = make()
        bench = Bench(provider, address, _entry(provider, address), patience)
        try:
            _check_applies(check, bench.info)
            check.run(bench)
        finally:
            bench.close()
    except NotApplicable as verdict:
        return Verdict.NOT_APPLICABLE, str(verdict)
    except CheckFailed as verdict:
        return Verdict.FAILED, str(verdict)
    except SpiError as error:
        where = error.call or "a call"
        return Verdict.FAILED, f"{where} was refused with {name_of(error.code)}: {error}"
    except BaseException as error:  # SystemExit too: whatever a plug-in may think of
        return Verdict.FAILED, f"raised {_words(error)}, which is no SpiError"
    return Verdict.PASSED, ""


def _entry(provider: Provider, address: SessionAddress) -> ProtocolInfo:
    info = provider.select(address)
    if not isinstance(info, ProtocolInfo):
        raise CheckFailed(f"select gave {type(info).__name__}, not a ProtocolInfo")
    return info


def _check_applies(check: ProviderCheck, info: ProtocolInfo) -> None:
    if check.control is not None and (check.control == "rooted") != info.control_plane_rooted:
        raise NotApplicable(f"for a {check.control} control plane")
    if check.plane is not None and (check.plane == "rooted") != info.data_plane_rooted:
        raise NotApplicable(f"for a {check.plane} data plane")
    if check.flags and not info.has(check.flags):
        raise NotApplicable("the entry does not claim it")


def _words(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" at {last[0].name}:{last[0].lineno}" if last else ""
    return f"{type(error).__name__}({error}){where}"


def _where_it_hangs(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    stack = traceback.extract_stack(frame) if frame is not None else []
    inner = " < ".join(entry.name for entry in reversed(stack[-3:]))
    return f"did not come back in time, hangs in {inner or 'a call'}"
