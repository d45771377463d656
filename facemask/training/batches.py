"""Batches of faces for Keras: in order, or augmented without end."""

from collections.abc import Sequence

import keras
import numpy as np

from facemask.boxes import crop_face
from facemask.models.model_info import ModelInfo
from facemask.training.augment import augment
from facemask.training.dataset import FacePatch


class FaceBatches(keras.utils.PyDataset):
    """Batches of all patches in their order: faces, float32 (n, size, size, 3) RGB 0..255, and labels, int (n,)."""

    def __init__(self, patches: Sequence[FacePatch], labels: np.ndarray, info: ModelInfo, batch_size: int) -> None:
        super().__init__()
        self.patches, self.labels, self.info, self.batch_size = patches, labels, info, batch_size

    def __len__(self) -> int:
        return -(-len(self.patches) // self.batch_size)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(number * self.batch_size, (number + 1) * self.batch_size)
        crops = [crop_face(patch.image, patch.box, self.info.input_size, self.info.margin) for patch in self.patches[part]]
        return np.stack(crops).astype(np.float32), self.labels[part]


class AugmentedBatches(keras.utils.PyDataset):
    """Batches as FaceBatches', without end: each epoch shows each face once, in a new order, changed at random.

    Of a face with several patches an epoch draws one. What a batch holds follows from its number, counted through all
    epochs, and the seed, so a run repeats whatever the number of workers and however far ahead they prepare.
    """

    num_batches = None  # without end

    def __init__(
        self,
        patches: Sequence[FacePatch],
        labels: np.ndarray,
        info: ModelInfo,
        batch_size: int,
        *,
        faces: np.ndarray,
        seed: int,
        workers: int = 1,
        max_queue_size: int = 8,
    ) -> None:
        """`faces` (n,) int: patches of the same number show the same face."""
        super().__init__(workers=workers, max_queue_size=max_queue_size)
        self.patches, self.labels, self.info, self.batch_size = patches, labels, info, batch_size
        self.faces, self.seed = faces, seed
        self.batches_per_epoch = -(-len(np.unique(faces)) // batch_size)
        self.first = 0

    def start(self, epoch: int) -> None:
        """Let batch 0 be the first of that epoch, counted from 0."""
        self.first = epoch * self.batches_per_epoch

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        epoch, batch = divmod(self.first + number, self.batches_per_epoch)
        chosen = self._order(epoch)[batch * self.batch_size : (batch + 1) * self.batch_size]
        rng = np.random.default_rng((self.seed, epoch, batch))
        crops = [augment(self.patches[i], self.info.input_size, self.info.margin, rng) for i in chosen]
        return np.stack(crops).astype(np.float32), self.labels[chosen]

    def _order(self, epoch: int) -> np.ndarray:
        shuffled = np.random.default_rng((self.seed, epoch)).permutation(len(self.patches))
        return shuffled[np.sort(np.unique(self.faces[shuffled], return_index=True)[1])]
