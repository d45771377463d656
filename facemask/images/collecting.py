"""Collect the images of a run that are worth labelling."""

import logging

from facemask.images.outputs import ImageOutput, ImageResult
from facemask.io.collect import Collector

logger = logging.getLogger("facemask")


class CollectedImages(ImageOutput):
    """Passes images to a collector."""

    needs_image = True

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def write(self, item: ImageResult) -> None:
        assert item.result.image is not None
        self._collector.consider(item.result.image, item.result.detections, item.path.stem)

    def close(self) -> None:
        logger.info(self._collector.summary())
