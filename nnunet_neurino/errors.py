"""The one exception family of the project."""


class NeurinoError(Exception):
    """Something the user can put right.

    The message is one line that names the file (and line or voxel), what was expected and what to do. The command
    line prints it without a traceback.
    """
