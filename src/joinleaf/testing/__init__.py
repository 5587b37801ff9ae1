"""For whoever tests with joinleaf: a simulated network, a clock to move, whole runs by seed."""

from joinleaf.testing.check_provider import (
    CheckResult,
    Report,
    Verdict,
    check_names,
    check_provider,
)
from joinleaf.testing.clock import Agenda, ManualClock
from joinleaf.testing.groups import GroupSimulation
from joinleaf.testing.network import DatagramProfile, SimNetwork
from joinleaf.testing.simulation import Result, Simulation, SimulationError, simulate
from joinleaf.testing.streams import StreamEnd, StreamProfile

__all__ = [
    "Agenda",
    "CheckResult",
    "DatagramProfile",
    "GroupSimulation",
    "ManualClock",
    "Report",
    "Result",
    "SimNetwork",
    "Simulation",
    "SimulationError",
    "StreamEnd",
    "StreamProfile",
    "Verdict",
    "check_names",
    "check_provider",
    "simulate",
]
