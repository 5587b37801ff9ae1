"""``joinleaf protocols``: the catalogue with its flags."""

from __future__ import annotations

from typing import Any

from joinleaf.cli import options
from joinleaf.cli.exits import ExitCode
from joinleaf.cli.output import Common, Talk
from joinleaf.cli.running import run_verb
from joinleaf.cli.signals import Stop
from joinleaf.spi.catalogue import Catalogue, default_catalogue
from joinleaf.spi.protocol_info import ANY_MESSAGE_SIZE, ProtocolInfo, flag_names

__all__ = ["protocols"]


def protocols(
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> int:
    """List the kinds of session there are, with their Winsock flags."""

    def body(talk: Talk, stop: Stop) -> tuple[ExitCode, dict[str, Any]]:
        catalogue = default_catalogue()
        entries = catalogue.protocols()
        for info in entries:
            facts = _facts(catalogue, info)
            talk.event("protocol", **facts)
            if not json:
                talk.write(_block(facts).encode())
        broken = catalogue.broken()
        for error in broken:
            talk.complain(str(error), "warning")
        return ExitCode.OK, {"protocols": len(entries), "broken": [str(one) for one in broken]}

    return run_verb("protocols", Common(json, quiet, verbose), body)


def _facts(catalogue: Catalogue, info: ProtocolInfo) -> dict[str, Any]:
    limited = info.message_size not in (0, 1, ANY_MESSAGE_SIZE)
    return {
        "id": info.catalog_entry_id,
        "scheme": _scheme(catalogue, info),
        "name": info.name,
        "control": "rooted" if info.control_plane_rooted else "nonrooted",
        "data": "rooted" if info.data_plane_rooted else "nonrooted",
        "max_message": info.message_size if limited else None,
        "service_flags": info.service_flags,
        "flags": list(flag_names(info.service_flags)),
        "chain": list(info.chain),
    }


def _scheme(catalogue: Catalogue, info: ProtocolInfo) -> str:
    """Of the provider at the base; a layer has none."""
    return catalogue.open_chain(info.chain[-1]).scheme if info.chain else ""


def _block(facts: dict[str, Any]) -> str:
    size = facts["max_message"]
    message = "messages of any length" if size is None else f"messages up to {size} bytes"
    indent = " " * 10
    scheme = f"{facts['scheme']}://" if facts["scheme"] else "layer"
    return (
        f"{scheme:<10}{facts['name']}\n"
        f"{indent}control {facts['control']}, data {facts['data']}, {message}\n"
        f"{indent}{' '.join(facts['flags'])}\n"
    )
