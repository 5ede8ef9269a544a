"""Read by every Python that has this folder in its path: forks the workers that nnU-Net would spawn.

A spawned worker imports PyTorch and nnU-Net anew, which takes several times as long as what it is there for.
"""

import multiprocessing

get_context = multiprocessing.get_context
multiprocessing.get_context = lambda method=None: get_context("fork" if method == "spawn" else method)
