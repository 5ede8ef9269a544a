"""From a mask or probability map to SWC trees: our own tracer, and external programs behind the same function."""

from nnunet_neurino.tracing.settings import TraceSettings
from nnunet_neurino.tracing.tracer import trace

__all__ = ["TraceSettings", "trace"]
