"""Batches of crops for Keras: in order, or endless and augmented."""

from collections.abc import Sequence

import keras
import numpy as np

from facemask.boxes import crop_face
from facemask.models.model_info import ModelInfo
from facemask.training.augment import augment
from facemask.training.crops import Crop, class_indices


class FaceBatches(keras.utils.PyDataset):
    """Batches of all crops in order: float32 (n, size, size, 3) RGB 0..255 and class indices, int (n,)."""

    def __init__(self, crops: Sequence[Crop], info: ModelInfo, batch_size: int) -> None:
        super().__init__()
        self.crops, self.info, self.batch_size = crops, info, batch_size
        self.labels = class_indices(crops, info.classes)

    def __len__(self) -> int:
        return -(-len(self.crops) // self.batch_size)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(number * self.batch_size, (number + 1) * self.batch_size)
        patches = [crop.patch for crop in self.crops[part]]
        faces = [crop_face(patch.image, patch.box, self.info.input_size, self.info.margin) for patch in patches]
        return np.stack(faces).astype(np.float32), self.labels[part]


class AugmentedBatches(keras.utils.PyDataset):
    """Endless batches as those of FaceBatches: each epoch shows each face once, in a new order, augmented.

    If a face has several crops, an epoch draws one of them. The content of a batch follows from its number, counted
    through all epochs, and the seed, so a run repeats whatever the number of workers and however far ahead they prepare.
    """

    num_batches = None  # endless

    def __init__(
        self,
        crops: Sequence[Crop],
        info: ModelInfo,
        batch_size: int,
        *,
        seed: int,
        workers: int = 1,
        max_queue_size: int = 8,
    ) -> None:
        super().__init__(workers=workers, max_queue_size=max_queue_size)
        self.crops, self.info, self.batch_size, self.seed = crops, info, batch_size, seed
        self.labels = class_indices(crops, info.classes)
        self.face_ids = np.array([crop.face_id for crop in crops])
        self.batches_per_epoch = -(-len(np.unique(self.face_ids)) // batch_size)
        self.first = 0

    def start(self, epoch: int) -> None:
        """Make batch 0 the first batch of this epoch, counted from 0."""
        self.first = epoch * self.batches_per_epoch

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        epoch, batch = divmod(self.first + number, self.batches_per_epoch)
        chosen = self._order(epoch)[batch * self.batch_size : (batch + 1) * self.batch_size]
        rng = np.random.default_rng((self.seed, epoch, batch))
        views = [augment(self.crops[i].patch, self.info.input_size, self.info.margin, rng) for i in chosen]
        return np.stack(views).astype(np.float32), self.labels[chosen]

    def _order(self, epoch: int) -> np.ndarray:
        """Return one crop per face in random order, as indices."""
        shuffled = np.random.default_rng((self.seed, epoch)).permutation(len(self.crops))
        return shuffled[np.sort(np.unique(self.face_ids[shuffled], return_index=True)[1])]
