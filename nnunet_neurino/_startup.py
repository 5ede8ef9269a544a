"""Tell nnU-Net where our trainers are, at every start of Python (called by the installed ``nnunet_neurino.pth``).

Only the standard library's cheapest modules may be imported here: every Python in the environment pays for it.
Set ``NNUNET_NEURINO_NO_STARTUP=1`` to opt out.
"""

import os

OPT_OUT = "NNUNET_NEURINO_NO_STARTUP"
PLUGIN_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "plugin")


def register() -> None:
    """Append our plugin folder to ``nnUNet_extTrainer``; the user's own folders stay first. Safe to call twice."""
    if os.environ.get(OPT_OUT, "") not in ("", "0"):
        return
    known = [folder for folder in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep) if folder]
    if PLUGIN_FOLDER not in known:
        os.environ["nnUNet_extTrainer"] = os.pathsep.join([*known, PLUGIN_FOLDER])
