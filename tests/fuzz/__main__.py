"""``python -m tests.fuzz [--target NAME] [--seconds N] [--seed S] [--atheris]``.

Without atheris a deterministic loop of mutations runs over the corpus; with it (not a dependency;
``pip install atheris``), its coverage decides what is tried next. What fails is kept in the corpus,
where the tests replay it.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
import traceback
from importlib import import_module
from tempfile import TemporaryDirectory

from .mutate import CORPUS, Mutator
from .targets import TARGETS, Target


def keep(target: str, data: bytes) -> str:
    """Store an input that failed; its name says what it holds."""
    path = CORPUS / target / f"crash-{hashlib.sha256(data).hexdigest()[:12]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def minimise(check: Target, data: bytes) -> bytes:
    """Leave out whatever is not needed for the same kind of failure."""
    kind = failure(check, data)
    width = max(1, len(data) // 2)
    while width:
        position = 0
        while position < len(data):
            shorter = data[:position] + data[position + width :]
            if failure(check, shorter) is kind:
                data = shorter
            else:
                position += width
        width //= 2
    return data


def failure(check: Target, data: bytes) -> type[BaseException] | None:
    """What the input makes the target raise."""
    try:
        check(data)
    except Exception as error:
        return type(error)
    return None


def run(name: str, seconds: float, seed: int) -> tuple[int, int]:
    """Mutate until the time is up or something fails; return inputs and failures."""
    check, mutator = TARGETS[name], Mutator(name, seed)
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        data = mutator.next()
        count += 1
        try:
            check(data)
        except Exception:
            traceback.print_exc()
            sys.stdout.write(f"{name}: kept {keep(name, minimise(check, data))}\n")
            return count, 1
    return count, 0


def run_atheris(name: str, seconds: float, seed: int) -> None:
    """Hand the target to atheris; does not return."""
    import atheris

    # Imported once more, instrumented; instrumenting everything that is loaded takes minutes.
    for module in [m for m in sys.modules if m.startswith(("joinleaf", f"{__package__}."))]:
        del sys.modules[module]
    with atheris.instrument_imports(include=["joinleaf"]):
        targets = import_module(f"{__package__}.targets")
    with TemporaryDirectory() as findings:  # the first folder is where new inputs are put
        options = [f"-max_total_time={int(seconds)}", f"-seed={seed}", findings]
        atheris.Setup([sys.argv[0], *options, str(CORPUS / name)], targets.TARGETS[name])
        atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--target", choices=sorted(TARGETS), action="append")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--atheris", action="store_true", help="needs exactly one target")
    options = parser.parse_args()
    if options.atheris:
        run_atheris((options.target or ["frames"])[0], options.seconds, options.seed)
    failed = 0
    for name in options.target or list(TARGETS):
        count, failures = run(name, options.seconds, options.seed)
        failed += failures
        sys.stdout.write(f"{name}: {count} inputs, {failures} failures, seed {options.seed}\n")
        sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
