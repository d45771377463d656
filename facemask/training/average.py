"""The mean of the weights of several mask classifiers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from facemask.errors import InputError
from facemask.models.keras_network import Network, load_keras


def average(paths: Sequence[Path]) -> Network:
    """Return a network whose weights are the mean of those of `.keras` files; a file that is given twice counts twice.

    The mean of a network before and after fine-tuning is often better than either, on old photos and on new ones (WiSE-FT;
    Wortsman et al., "Robust fine-tuning of zero-shot models", 2022). The classes are those of the file with the most; the
    outputs of a class are averaged over the files that have it. Raises InputError if a file is not a model of this project,
    or if input size, margin or classes differ.
    """
    networks = [load_keras(path) for path in paths]
    result = max(networks, key=lambda network: len(network.info.classes))
    for path, network in zip(paths, networks, strict=True):
        if not set(network.info.classes) <= set(result.info.classes):
            raise InputError(f"{path}: has other classes ({', '.join(network.info.classes)}); give models of the same classes")
        if replace(network.info, classes=result.info.classes) != result.info:
            raise InputError(f"{path}: its input has another size or margin; give models of one kind")
    backbones = [network.model.get_layer("mobilenet_v2").get_weights() for network in networks]
    heads = [network.head.get_weights() for network in networks]  # kernel (1280, classes), bias (classes,)
    head = [array.copy() for array in result.head.get_weights()]
    for index, name in enumerate(result.info.classes):
        having = [
            (net.info.classes.index(name), arrays)
            for net, arrays in zip(networks, heads, strict=True)
            if name in net.info.classes
        ]
        for part, array in enumerate(head):
            array[..., index] = np.mean([arrays[part][..., column] for column, arrays in having], axis=0)
    result.model.get_layer("mobilenet_v2").set_weights([np.mean(arrays, axis=0) for arrays in zip(*backbones, strict=True)])
    result.head.set_weights(head)
    return result
