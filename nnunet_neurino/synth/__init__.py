"""Generated neurons: tree growth and a microscope model. Feeds the demo, the tests and the benchmarks."""

from nnunet_neurino.synth.growth import grow_trees
from nnunet_neurino.synth.mr import BlobSettings, generate_blob
from nnunet_neurino.synth.place import place
from nnunet_neurino.synth.presets import PRESETS, preset
from nnunet_neurino.synth.settings import GrowthSettings, MicroscopeSettings, SynthSettings
from nnunet_neurino.synth.volume import SynthVolume, generate, photograph

__all__ = [
    "PRESETS",
    "BlobSettings",
    "GrowthSettings",
    "MicroscopeSettings",
    "SynthSettings",
    "SynthVolume",
    "generate",
    "generate_blob",
    "grow_trees",
    "photograph",
    "place",
    "preset",
]
