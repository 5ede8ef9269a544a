"""From a mask or probability map to SWC trees: our own tracer, and external programs behind the same function."""

from nnunet_neurino.tracing.settings import TraceSettings
from nnunet_neurino.tracing.tracer import trace
from nnunet_neurino.tracing.tracers import TRACERS, find_external_tracers, trace_external, trace_with

__all__ = ["TRACERS", "TraceSettings", "find_external_tracers", "trace", "trace_external", "trace_with"]
