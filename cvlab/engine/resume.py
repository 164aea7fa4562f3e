"""Let a long training go on where it was cut off, with the same losses and weights as without the cut.

`learn.optimize` asks a `Training` where to begin, and tells it of each step. Where CVLAB_RESUME names a folder, as
`python -m cvlab run` does, the state of a training that has lasted SAVE_EVERY seconds lies there: weights, the
optimizer's variables, the order of the examples, the random generator. Shorter trainings are simply done again.
"""

import hashlib
import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

SAVE_EVERY = 60  # seconds between two saves; the environment variable CVLAB_RESUME_EVERY sets another number
trainings = itertools.count(1)  # of this process: the same lesson starts the same ones in the same order


class Training:
    """The state of one training, in memory and, where CVLAB_RESUME is set, on disk.

    Args:
        model: compiled, with a built optimizer.
        generator: numpy.random.Generator that the training draws from.
        arguments: list of numbers that tell this training from another with the same model.
    """

    def __init__(self, model: Any, generator: np.random.Generator, arguments: list):
        folder, number = os.environ.get("CVLAB_RESUME"), next(trainings)
        self.path = None
        if folder:
            self.variables = [*model.variables, *model.optimizer.variables]
            shapes = [[list(variable.shape), str(variable.dtype)] for variable in self.variables]
            digest = hashlib.sha256(json.dumps([arguments, shapes], default=float).encode()).hexdigest()[:12]
            self.path = Path(folder) / f"training-{number:03d}-{digest}.npz"
        self.generator, self.steps = generator, arguments[0]
        self.every = float(os.environ.get("CVLAB_RESUME_EVERY", SAVE_EVERY))
        self.saved = time.monotonic()  # or begun

    def restore(self) -> tuple:
        """Restore the state that an earlier process saved.

        Returns:
            The number of steps done, the order of the examples that come next (int array), and the losses (list of
            float); 0, an empty array and an empty list where nothing was saved.
        """
        if self.path is None or not self.path.exists():
            return 0, np.arange(0), []
        with np.load(self.path, allow_pickle=False) as state:
            for i, variable in enumerate(self.variables):
                variable.assign(state[f"variable {i}"])
            self.generator.bit_generator.state = json.loads(str(state["generator"]))
            step, order, losses = int(state["step"]), state["order"], state["losses"].tolist()
        print(f"the training goes on after {step:,} of {self.steps:,} steps", file=sys.stderr)
        return step, order, losses

    def save(self, step: int, order: np.ndarray, losses: list) -> None:
        """Note that a step is done; write the state to disk now and then. A disk that is full does not end a training.

        Args:
            step: number of steps done. order: rows of the examples that come next. losses: of each step.
        """
        if self.path is None or time.monotonic() - self.saved < self.every:
            return
        beside = self.path.with_suffix(".partial")
        arrays = {f"variable {i}": ops.convert_to_numpy(variable) for i, variable in enumerate(self.variables)}
        generator = json.dumps(self.generator.bit_generator.state)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(beside, "wb") as file:
                np.savez(file, step=step, order=order, losses=np.float64(losses), generator=generator, **arrays)
            beside.replace(self.path)
        except OSError as error:
            print(f"the state of the training can't be saved: {error}", file=sys.stderr)
            beside.unlink(missing_ok=True)
        self.saved = time.monotonic()
