"""What a method finds in one pass over the training images, before the first gradient step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

from tqdm.auto import tqdm

from flowad_jax import parallel
from flowad_jax.features.batches import Features
from flowad_jax.training.experiment import Experiment
from flowad_jax.types import Batch, TrainState


def fitted(
    experiment: Experiment, state: TrainState, train: Features, stop: Callable[[], None]
) -> TrainState:
    """Returns the state with what `Method.fit` finds in the images of the first epoch.

    ``stop`` is called after every batch; what it raises ends the pass.
    """
    fit, devices = experiment.method.fit, experiment.devices
    if fit is None:
        return state

    def on_host() -> Iterator[Batch]:
        bar = tqdm(total=len(train), desc="fit", unit="batch", disable=None, leave=False)
        with bar, closing(train.epoch(0)) as batches:
            for batch in batches:
                maps = tuple(parallel.gather(x) for x in batch.maps)
                label, weight = parallel.gather(batch.label), parallel.gather(batch.weight)
                yield Batch(maps, label=label, weight=weight)
                bar.update()
                stop()

    variables = {"params": state.params, "buffers": state.buffers}
    return state._replace(buffers=devices.replicate(fit(variables, on_host())))
